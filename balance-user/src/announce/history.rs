//! The history: the latest events in two files, a JSON line each. It survives the daemon, however that ends, and is read
//! without it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::event::Event;

/// The file that is written to, and the one before it.
const FILE: &str = "events.jsonl";
const OLDER: &str = "events.1.jsonl";
/// So long a file gets, in bytes: some 500 events.
const SIZE: u64 = 256 * 1024;

/// Where the history of an instance may be: under `/var/lib`, or where that cannot be written, under `/run`.
#[must_use]
pub fn folders(instance: &str) -> [PathBuf; 2] {
    ["/var/lib/balance", "/run/balance"].map(|parent| Path::new(parent).join(instance))
}

/// All events that are kept, oldest first. Lines that make no sense are passed over: a crash may have cut one off.
#[must_use]
pub fn read(folders: &[PathBuf]) -> Vec<Event> {
    let of = |folder: &PathBuf| {
        let files = [OLDER, FILE].map(|name| fs::read(folder.join(name)).unwrap_or_default());
        files.iter().flat_map(|bytes| parse(bytes)).collect::<Vec<_>>()
    };
    let mut histories: Vec<Vec<Event>> = folders.iter().map(of).filter(|events| !events.is_empty()).collect();
    // One is in order, whatever the clock did.
    let is_mixed = histories.len() > 1;
    let mut events: Vec<Event> = histories.drain(..).flatten().collect();
    if is_mixed {
        events.sort_by_key(|event| event.time);
    }
    events
}

/// Adds an event to the history in the first of some folders that can be written, which is made if it is missing. None of
/// them will do: why the last will not.
pub fn add(folders: &[PathBuf], event: &Event) -> io::Result<()> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for folder in folders {
        result = add_in(folder, event, SIZE);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// When the file would get longer than `size` another one is begun, and the one before the last is gone. Events are rare: the file
/// is opened for each, so it does not matter what others have done to it.
fn add_in(folder: &Path, event: &Event, size: u64) -> io::Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    fs::create_dir_all(folder)?;
    let path = folder.join(FILE);
    let open = || OpenOptions::new().read(true).append(true).create(true).open(&path);
    let mut file = open()?;
    let length = file.metadata()?.len();
    if length > 0 && length + line.len() as u64 > size {
        fs::rename(&path, folder.join(OLDER))?;
        file = open()?;
    } else if length > 0 {
        // A daemon may have been killed in the middle of a line.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            line.insert(0, b'\n');
        }
    }
    // At once, so that nobody reads a part of it.
    file.write_all(&line)
}

/// Follows what is written to a folder's file from now on.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: Option<File>,
    /// The beginning of a line that has not come to its end.
    rest: Vec<u8>,
}

impl Follower {
    /// What is there already is passed over.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let path = folder.join(FILE);
        let at_end = |mut file: File| file.seek(SeekFrom::End(0)).map(|_| file);
        let file = File::open(&path).and_then(at_end).ok();
        Self { path, file, rest: Vec::new() }
    }

    /// What has come since it was asked last.
    pub fn read(&mut self) -> io::Result<Vec<Event>> {
        let mut events = self.read_file()?;
        // The one that is open may have become the older one, which nothing is added to any more.
        if let Ok(file) = File::open(&self.path) {
            let number = |file: &File| file.metadata().map(|metadata| metadata.ino());
            let is_same = self.file.as_ref().is_some_and(|open| number(open).ok() == number(&file).ok());
            if !is_same {
                events.extend(self.read_file()?);
                self.file = Some(file);
                self.rest.clear();
                events.extend(self.read_file()?);
            }
        }
        Ok(events)
    }

    fn read_file(&mut self) -> io::Result<Vec<Event>> {
        let Some(file) = &mut self.file else { return Ok(Vec::new()) };
        file.read_to_end(&mut self.rest)?;
        let end = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |position| position + 1);
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        Ok(parse(&whole).collect())
    }
}

fn parse(bytes: &[u8]) -> impl Iterator<Item = Event> {
    let lines = bytes.split(|&byte| byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line).ok()).collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::event;
    use super::*;

    fn isps(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| &*event.change.isp).collect()
    }

    #[test]
    fn what_was_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().join("main")];
        assert_eq!(read(&folders), []);
        add(&folders, &event("A", "down")).unwrap();
        add(&folders, &event("B", "up")).unwrap();
        assert_eq!(read(&folders), [event("A", "down"), event("B", "up")]);
    }

    #[test]
    fn a_line_that_a_crash_has_cut_off_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        add(&folders, &event("A", "down")).unwrap();
        let path = folder.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{}", &text[..text.len() / 2])).unwrap();
        add(&folders, &event("B", "up")).unwrap();
        assert_eq!(isps(&read(&folders)), ["A", "B"]);
    }

    #[test]
    fn two_files_are_all_that_it_grows_to_and_the_latest_events_stay() {
        let folder = tempfile::tempdir().unwrap();
        let mut follower = Follower::new(folder.path());
        let names: Vec<String> = (0..100).map(|number| format!("I{number}")).collect();
        let mut seen = Vec::new();
        for name in &names {
            add_in(folder.path(), &event(name, "down"), 4000).unwrap();
            seen.extend(follower.read().unwrap());
        }
        let length = |name| fs::metadata(folder.path().join(name)).unwrap().len();
        assert!(length(FILE) <= 4000 && length(OLDER) <= 4000);
        let events = read(&[folder.path().to_owned()]);
        assert!(events.len() >= 7, "{}", events.len());
        assert_eq!(isps(&events), names[100 - events.len()..]);
        assert_eq!(isps(&seen), names);
    }

    #[test]
    fn where_the_first_folder_cannot_be_written_the_second_is_and_both_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let [good, other] = ["good", "other"].map(|name| folder.path().join(name));
        // A file is no folder, for root either.
        fs::write(folder.path().join("file"), "").unwrap();
        let bad = folder.path().join("file/main");
        assert!(add(std::slice::from_ref(&bad), &event("A", "down")).is_err());
        add(&[bad, other.clone()], &event("A", "down")).unwrap();
        add(&[good.clone(), other.clone()], &event("B", "down")).unwrap();
        assert_eq!(read(&[good, other]).len(), 2);
    }

    #[test]
    fn following_begins_with_what_is_new_and_waits_for_the_file_and_for_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("main");
        let mut early = Follower::new(&path);
        assert_eq!(early.read().unwrap(), []);
        add_in(&path, &event("A", "down"), SIZE).unwrap();
        assert_eq!(isps(&early.read().unwrap()), ["A"]);
        let mut late = Follower::new(&path);
        assert_eq!(late.read().unwrap(), []);
        let line = serde_json::to_vec(&event("B", "up")).unwrap();
        let (first, second) = line.split_at(9);
        let mut file = OpenOptions::new().append(true).open(path.join(FILE)).unwrap();
        file.write_all(first).unwrap();
        assert_eq!(late.read().unwrap(), []);
        file.write_all(second).unwrap();
        file.write_all(b"\n").unwrap();
        assert_eq!(isps(&late.read().unwrap()), ["B"]);
        assert_eq!(isps(&early.read().unwrap()), ["B"]);
    }
}
