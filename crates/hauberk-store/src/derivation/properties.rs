//! What both worlds tell about a build through its environment.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use super::Derivation;

impl Derivation {
    /// Gives the value of an environment variable.
    pub fn env_var(&self, name: &str) -> Option<&[u8]> {
        self.env.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// Gives the features a machine must have (`requiredSystemFeatures`), as `kvm` or `big-parallel`.
    pub fn required_system_features(&self) -> BTreeSet<String> {
        self.words("requiredSystemFeatures").into_iter().collect()
    }

    /// Gives the longest time the build may take, where the derivation says so.
    ///
    /// Nix derivations say it in the variable `timeout`, Guix ones in the property of that name; both in seconds.
    pub fn timeout(&self) -> Option<Duration> {
        self.seconds(&["timeout"])
    }

    /// Gives the longest time the build may be silent, where the derivation says so.
    ///
    /// Nix derivations say it in the variable `maxSilent`, Guix ones in the property `max-silent-time`; both in seconds.
    pub fn max_silent(&self) -> Option<Duration> {
        self.seconds(&["maxSilent", "max-silent-time"])
    }

    /// Tells whether the build is too small to be worth sending elsewhere (`preferLocalBuild`).
    pub fn prefers_local_build(&self) -> bool {
        self.flag("preferLocalBuild").unwrap_or(false)
    }

    /// Tells whether its outputs may be substituted (`allowSubstitutes`).
    pub fn allows_substitutes(&self) -> bool {
        self.flag("allowSubstitutes").unwrap_or(true)
    }

    /// Gives the value of a property Guix attaches to a derivation, as its text is written: `(name . value)`.
    pub fn guix_property(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(self.env_var("guix properties")?).ok()?;
        association(text, name)
    }

    /// Reads a flag: `1` in the environment, `true` in structured attributes.
    fn flag(&self, name: &str) -> Option<bool> {
        match self.structured(name) {
            Some(Value::Bool(flag)) => Some(flag),
            Some(Value::String(text)) => Some(text == "1"),
            Some(_) => None,
            None => self.env_var(name).map(|value| value == b"1"),
        }
    }

    fn words(&self, name: &str) -> Vec<String> {
        match self.structured(name) {
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
            Some(_) => Vec::new(),
            None => self
                .env_var(name)
                .map(String::from_utf8_lossy)
                .map(|text| text.split_ascii_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
        }
    }

    /// Reads a whole number of seconds above zero under the first of `names` that has one.
    fn seconds(&self, names: &[&str]) -> Option<Duration> {
        let number = |name: &&str| match self.structured(name) {
            Some(value) => value.as_u64().or_else(|| value.as_str()?.parse().ok()),
            None => self
                .env_var(name)
                .and_then(|value| std::str::from_utf8(value).ok())
                .or_else(|| self.guix_property(name))
                .and_then(|text| text.trim().parse().ok()),
        };
        names.iter().find_map(number).filter(|&seconds| seconds > 0).map(Duration::from_secs)
    }

    /// Gives a structured attribute (`__json`); those take the place of the environment's variables.
    fn structured(&self, name: &str) -> Option<Value> {
        let json = self.env_var("__json")?;
        match serde_json::from_slice(json) {
            Ok(Value::Object(mut attributes)) => attributes.remove(name),
            _ => None,
        }
    }
}

/// Finds `(name . value)` among the members of an association list and gives the text of the value.
fn association<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let members = text.trim().strip_prefix('(')?;
    let (mut depth, mut begin, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for (offset, byte) in members.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'(' => {
                if depth == 0 {
                    begin = offset + 1;
                }
                depth += 1;
            }
            b')' if depth == 0 => return None,
            b')' => {
                depth -= 1;
                let member = &members[begin..offset];
                if depth == 0
                    && let Some((key, value)) = member.split_once(" . ")
                    && key.trim() == name
                {
                    return Some(value.trim());
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreDirectory;

    fn with_env(env: &[(&str, &str)]) -> Derivation {
        let mut derivation = Derivation::parse(
            &StoreDirectory::nix(),
            br#"Derive([("out","/nix/store/x73mwwgn48z7flxzwmsfk9d0fnjcbcj0-a","","")],[],[],"x86_64-linux","/bin/sh",[],[])"#,
        )
        .unwrap();
        derivation.env =
            env.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        derivation
    }

    #[test]
    fn plain_environment() {
        let derivation = with_env(&[
            ("requiredSystemFeatures", " kvm  big-parallel\n"),
            ("timeout", "3600"),
            ("maxSilent", "0"),
            ("preferLocalBuild", "1"),
            ("allowSubstitutes", ""),
        ]);
        assert_eq!(derivation.required_system_features(), ["big-parallel", "kvm"].map(String::from).into());
        assert_eq!(derivation.timeout(), Some(Duration::from_secs(3600)));
        assert_eq!(derivation.max_silent(), None);
        assert!(derivation.prefers_local_build());
        assert!(!derivation.allows_substitutes());
        let bare = with_env(&[]);
        assert!(bare.required_system_features().is_empty() && bare.allows_substitutes());
        assert!(!bare.prefers_local_build());
    }

    #[test]
    fn structured_attributes() {
        let json = r#"{"requiredSystemFeatures":["kvm"],"timeout":60,"preferLocalBuild":true}"#;
        let derivation = with_env(&[("__json", json)]);
        assert_eq!(derivation.required_system_features(), ["kvm".to_owned()].into());
        assert_eq!(derivation.timeout(), Some(Duration::from_secs(60)));
        assert!(derivation.prefers_local_build());
        assert_eq!(with_env(&[("__json", "[")]).timeout(), None);
    }

    #[test]
    fn guix_properties() {
        let text = r#"((type . "a ) (timeout . 1)") (nested (timeout . 2)) (timeout . 72000) (max-silent-time . 90))"#;
        let derivation = with_env(&[("guix properties", text)]);
        assert_eq!(derivation.timeout(), Some(Duration::from_secs(72000)));
        assert_eq!(derivation.max_silent(), Some(Duration::from_secs(90)));
        assert_eq!(
            with_env(&[("guix properties", "((type . origin))")]).guix_property("type"),
            Some("origin")
        );
    }
}
