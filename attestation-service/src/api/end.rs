//! When something ends, as people and autoscalers say it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// When something ends: `2030-01-01T00:00:00Z`, or `+8h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// At a moment.
    At(Timestamp),
    /// So long from now, by the clock of who reads it: what asks needs no clock that is right.
    In(Duration),
}

impl End {
    /// The moment, counted from `now`.
    ///
    /// # Errors
    /// When there is no such moment.
    pub fn moment(self, now: Timestamp) -> Result<Timestamp, jiff::Error> {
        match self {
            Self::At(moment) => Ok(moment),
            Self::In(duration) => now.checked_add(duration),
        }
    }
}

impl From<Timestamp> for End {
    fn from(moment: Timestamp) -> Self {
        Self::At(moment)
    }
}

/// Text that says no end.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is neither a time (RFC 3339) nor a duration from now (`+8h`)")]
pub struct ParseEndError(String);

impl FromStr for End {
    type Err = ParseEndError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let end = match text.strip_prefix('+') {
            Some(duration) => humantime::parse_duration(duration).ok().map(Self::In),
            None => text.parse().ok().map(Self::At),
        };
        end.ok_or_else(|| ParseEndError(text.to_owned()))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(moment) => moment.fmt(f),
            Self::In(duration) => write!(f, "+{}", humantime::format_duration(*duration)),
        }
    }
}

impl Serialize for End {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_time_or_a_duration_from_now() {
        let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        for (text, moment) in [
            ("+8h", "2030-01-01T08:00:00Z"),
            ("+1day 30s", "2030-01-02T00:00:30Z"),
            ("2031-02-03T04:05:06Z", "2031-02-03T04:05:06Z"),
        ] {
            let end: End = text.parse().unwrap();
            assert_eq!(end.moment(now).unwrap().to_string(), moment, "{text}");
            let sent = serde_json::to_string(&end).unwrap();
            assert_eq!(serde_json::from_str::<End>(&sent).unwrap(), end, "{sent}");
        }
    }

    #[test]
    fn what_says_no_end_is_refused_and_named() {
        for text in ["", "+", "8h", "++8h", "+-8h", "+8", "-8h", "tomorrow", "+99999999999999999999y"] {
            let error = text.parse::<End>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`{text}` is neither a time (RFC 3339) nor a duration from now (`+8h`)")
            );
        }
    }

    #[test]
    fn an_end_beyond_all_times_is_none() {
        let end: End = "+500000years".parse().unwrap();
        assert!(end.moment(Timestamp::now()).is_err());
    }
}
