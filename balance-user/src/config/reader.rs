//! Reading values out of TOML with their places, so that whatever is wrong with one can be shown where it is.

use std::fmt::Display;
use std::ops::Range;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::error::Problem;

type Spanned<T> = toml::Spanned<T>;

/// A table of the file, of which all keys are known.
pub(super) struct Table<'a> {
    entries: &'a DeTable<'a>,
    span: Range<usize>,
}

/// One value of the file, under the name that errors call it by.
#[derive(Clone, Copy)]
pub(super) struct Item<'a> {
    name: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    /// The table at `span`, which may have only these keys. `what` says what it is, such as "an [[isp]]".
    pub(super) fn new(
        what: &str,
        known: &[&str],
        entries: &'a DeTable<'a>,
        span: Range<usize>,
    ) -> Result<Self, Problem> {
        let stranger = entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        match stranger.min_by_key(|key| key.span().start) {
            None => Ok(Self { entries, span }),
            Some(key) => Err(Problem::new(
                key.span(),
                format!("unknown key `{}`: {what} can have {}", key.get_ref(), known.join(", ")),
            )),
        }
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&self, key: &'a str) -> Option<Item<'a>> {
        self.entries
            .iter()
            .find(|(name, _)| name.get_ref() == key)
            .map(|(_, value)| Item { name: key, value })
    }

    /// The value of a key that must be there; `hint` is how it could look.
    pub(super) fn need(&self, key: &'a str, hint: &str) -> Result<Item<'a>, Problem> {
        self.get(key).ok_or_else(|| Problem::new(self.span.clone(), format!("{key} is missing: add {hint}")))
    }

    /// A number that may be left out.
    pub(super) fn number<T>(&self, key: &'a str, range: (T, T), default: T) -> Result<T, Problem>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        self.get(key).map_or(Ok(default), |item| item.number(range))
    }

    /// A duration that may be left out.
    pub(super) fn duration(
        &self,
        key: &'a str,
        range: (Duration, Duration),
        default: Duration,
    ) -> Result<Duration, Problem> {
        self.get(key).map_or(Ok(default), |item| item.duration(range))
    }

    /// Yes or no, that may be left out.
    pub(super) fn flag(&self, key: &'a str, default: bool) -> Result<bool, Problem> {
        self.get(key).map_or(Ok(default), |item| item.flag())
    }

    /// One of several words, that may be left out.
    pub(super) fn choice<T: Copy + Default>(&self, key: &'a str, words: &[(&str, T)]) -> Result<T, Problem> {
        let Some(item) = self.get(key) else { return Ok(T::default()) };
        let chosen = words.iter().find(|(word, _)| item.value.get_ref().as_str() == Some(word));
        chosen.map(|&(_, value)| value).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            item.problem(format!("{key} must be one of {}", words.join(", ")))
        })
    }
}

impl<'a> Item<'a> {
    /// Something wrong with this value.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.value.span(), message)
    }

    /// What errors call it.
    pub(super) const fn name(&self) -> &'a str {
        self.name
    }

    /// Whether it is a string.
    pub(super) fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    /// A string that `read` takes; it says what is wrong with any other.
    pub(super) fn text<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Problem> {
        let text = self.value.get_ref().as_str();
        let text = text.ok_or_else(|| self.problem(format!("{} must be a string in quotes", self.name)))?;
        read(text).map_err(|message| self.problem(message))
    }

    /// A whole number within a range.
    pub(super) fn number<T>(&self, (min, max): (T, T)) -> Result<T, Problem>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let Some(number) = self.value.get_ref().as_integer() else {
            return Err(self.problem(format!("{} must be a whole number, from {min} to {max}", self.name)));
        };
        let number =
            i128::from_str_radix(number.as_str(), number.radix()).ok().and_then(|n| T::try_from(n).ok());
        number
            .filter(|number| (&min..=&max).contains(&number))
            .ok_or_else(|| self.problem(format!("{} must be between {min} and {max}", self.name)))
    }

    /// Yes or no.
    pub(super) fn flag(&self) -> Result<bool, Problem> {
        let value = self.value.get_ref().as_bool();
        value.ok_or_else(|| self.problem(format!("{} must be true or false, without quotes", self.name)))
    }

    /// A duration within a range.
    pub(super) fn duration(&self, (min, max): (Duration, Duration)) -> Result<Duration, Problem> {
        let text = self.value.get_ref().as_str().filter(|text| text.is_ascii());
        let Some(duration) = text.and_then(|text| humantime::parse_duration(text).ok()) else {
            return Err(self.problem(format!("{} must be a duration such as \"500ms\" or \"5s\"", self.name)));
        };
        if (min..=max).contains(&duration) {
            return Ok(duration);
        }
        let [min, max] = [min, max].map(humantime::format_duration);
        Err(self.problem(format!("{} must be between {min} and {max}", self.name)))
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Result<impl Iterator<Item = Self> + use<'a>, Problem> {
        let Self { name, value } = *self;
        let list = value.get_ref().as_array();
        let list = list.ok_or_else(|| self.problem(format!("{name} must be a list: put it in [ ]")))?;
        Ok(list.iter().map(move |value| Self { name, value }))
    }

    /// The items of a list, or the one item that stands in its place.
    pub(super) fn one_or_more(&self) -> Result<Vec<Self>, Problem> {
        if self.value.get_ref().is_array() { Ok(self.list()?.collect()) } else { Ok(vec![*self]) }
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    /// The names and values of a table that may have any keys, in the order of their names.
    pub(super) fn pairs(&self) -> Result<Vec<(&'a str, Self)>, Problem> {
        let table = self.value.get_ref().as_table();
        let table = table.ok_or_else(|| {
            self.problem(format!("{} must be a table, such as {{ name = \"value\" }}", self.name))
        })?;
        let pair = |(key, value): (&'a Spanned<_>, _)| -> (&'a str, Self) {
            let key: &std::borrow::Cow<'a, str> = key.get_ref();
            (key, Self { name: self.name, value })
        };
        Ok(table.iter().map(pair).collect())
    }

    /// A table that may have only these keys.
    pub(super) fn table(&self, known: &[&str]) -> Result<Table<'a>, Problem> {
        let entries = self.value.get_ref().as_table().ok_or_else(|| {
            self.problem(format!("{0} must be a table: write [{0}] and its keys below", self.name))
        })?;
        Table::new(&format!("[{}]", self.name), known, entries, self.value.span())
    }

    /// Several tables, each of which may have only these keys.
    pub(super) fn tables(&self, known: &[&str]) -> Result<Vec<Table<'a>>, Problem> {
        let Self { name, value } = *self;
        let misfit = |at: &Spanned<_>| {
            Problem::new(
                at.span(),
                format!("each {name} must be a table of its own: write [[{name}]], in two brackets"),
            )
        };
        let list = value.get_ref().as_array().ok_or_else(|| misfit(value))?;
        let tables = list.iter().map(|value| {
            let entries = value.get_ref().as_table().ok_or_else(|| misfit(value))?;
            Table::new(&format!("[[{name}]]"), known, entries, value.span())
        });
        tables.collect()
    }
}

impl Table<'_> {
    /// The line of the config's text on which it begins, from 1.
    pub(super) fn line_in(&self, text: &str) -> usize {
        1 + text.get(..self.span.start).unwrap_or_default().matches('\n').count()
    }

    /// Something wrong with the table as a whole.
    pub(super) fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.span.clone(), message)
    }
}

/// What the TOML parser has to say, without what only it understands.
pub(super) fn syntax(error: &toml::de::Error) -> Problem {
    let message = error.message();
    let message = [", expected nothing", ", expected literal string"]
        .iter()
        .find_map(|jargon| message.strip_suffix(jargon))
        .unwrap_or(message);
    Problem::new(error.span().unwrap_or_default(), format!("not valid TOML: {message}"))
}
