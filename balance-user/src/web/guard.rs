//! Who may do what on the page: everybody who reaches it may look, whoever has the token may change things.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST};
use hyper::http::uri::Authority;
use subtle::ConstantTimeEq as _;

use crate::announce::history;
use crate::config::WebConfig;

/// What the file is called where the config does not say.
const FILE: &str = "web-token";
/// The shortest token that is taken, in characters.
const SHORTEST: usize = 16;
/// So many random bytes a new token has.
const RANDOM: usize = 32;

/// Lets browsers in.
#[derive(Debug)]
pub(crate) struct Guard {
    token: String,
    hosts: Vec<String>,
}

/// What came of looking at a request's headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is for another host: a page of somebody else may have had its own name lead to our address.
    Stranger,
    /// There is a token, and it is wrong.
    WrongToken,
    /// There is none.
    Guest,
    /// The token is right.
    Owner,
}

impl Guard {
    /// For an instance. Makes the token if there is none yet.
    pub(crate) fn new(instance: &str, config: &WebConfig) -> io::Result<Self> {
        let token = match &config.token_file {
            Some(file) => token_in(file)?,
            None => token_in_first(&history::folders(instance).map(|folder| folder.join(FILE)))?,
        };
        Ok(Self { token, hosts: config.hosts.clone() })
    }

    /// Looks at a request.
    pub(crate) fn look(&self, headers: &HeaderMap) -> Seen {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !is_ours(host, &self.hosts) {
            return Seen::Stranger;
        }
        let Some(given) = headers.get(AUTHORIZATION) else { return Seen::Guest };
        let given = given.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
        if bool::from(given.ct_eq(self.token.as_bytes())) { Seen::Owner } else { Seen::WrongToken }
    }
}

/// Whether a browser that asks for this host means us. Addresses cannot be led elsewhere, as names can.
fn is_ours(host: &str, hosts: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name == "localhost" || name.parse::<IpAddr>().is_ok() || hosts.contains(&name)
}

fn token_in_first(files: &[PathBuf]) -> io::Result<String> {
    let mut result = Err(io::ErrorKind::NotFound.into());
    for file in files {
        result = token_in(file);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// The token in a file, which is made if it is missing.
fn token_in(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let wrong = |why: &str| Err(io::Error::other(format!("{} {why}", file.display())));
            let token = text.trim();
            if fs::metadata(file)?.mode() & 0o007 != 0 {
                wrong("can be read by everybody: chmod 600")
            } else if token.len() < SHORTEST {
                wrong("has no token of 16 characters or more")
            } else {
                Ok(token.to_owned())
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(file),
        Err(error) => Err(error),
    }
    .map_err(|error| io::Error::other(format!("the token of the page, {}: {error}", file.display())))
}

fn make(file: &Path) -> io::Result<String> {
    let mut random = [0; RANDOM];
    fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let token = random.iter().fold(String::new(), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    });
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(new, "{token}")?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn guard() -> Guard {
        Guard { token: "a token of some length".to_owned(), hosts: vec!["router.lan".to_owned()] }
    }

    fn seen(headers: &[(&'static str, &str)]) -> Seen {
        let pairs = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        guard().look(&pairs.collect())
    }

    #[test]
    fn names_that_others_can_lead_here_are_strangers() {
        for host in
            ["localhost", "LOCALHOST:8686", "127.0.0.1:8686", "[::1]:8686", "192.168.1.1", "Router.LAN:1"]
        {
            assert_eq!(seen(&[("host", host)]), Seen::Guest, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "router.lan.evil.example:8686",
            "127.0.0.1.nip.io",
            "@",
        ] {
            assert_eq!(seen(&[("host", host)]), Seen::Stranger, "{host}");
        }
        assert_eq!(seen(&[]), Seen::Stranger);
        let token = ("authorization", "Bearer a token of some length");
        assert_eq!(seen(&[("host", "evil.example"), token]), Seen::Stranger);
    }

    #[test]
    fn only_the_whole_token_is_right() {
        let with = |value: &str| seen(&[("host", "localhost"), ("authorization", value)]);
        assert_eq!(with("Bearer a token of some length"), Seen::Owner);
        for wrong in ["", "Bearer ", "Bearer a token", "a token of some length", "Basic eA=="] {
            assert_eq!(with(wrong), Seen::WrongToken, "{wrong}");
        }
    }

    #[test]
    fn a_token_is_made_once_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("main/token");
        let token = token_in(&file).unwrap();
        assert_eq!((token.len(), token_in(&file).unwrap()), (2 * RANDOM, token));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(token_in(&file).unwrap_err().to_string().contains("chmod 600"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&file, "short\n").unwrap();
        assert!(token_in(&file).is_err());
        let bad = folder.path().join("main/token/none");
        assert!(token_in_first(&[bad.clone(), folder.path().join("other")]).is_ok());
        assert!(token_in(&bad).is_err());
    }
}
