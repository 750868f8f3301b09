//! From what the database says to what a worker is told, and from what a worker says to what is recorded.

use std::collections::BTreeSet;

use hauberk_database::dispatch::{AttemptClass, BuiltOutput, Claimed, Measures};
use hauberk_protocol::proto::{Assign, AttemptKind, ExpectedOutput, Finished, Input};
use hauberk_store::{OutputName, StorePath};

use crate::step::Policy;

/// Longest message of a worker about an attempt that is kept, in bytes.
pub(crate) const MESSAGE_LIMIT: usize = 4096;

pub(crate) fn assign(claimed: &Claimed, policy: &Policy) -> Assign {
    let kind = if claimed.number == 1 { AttemptKind::First } else { AttemptKind::Retry };
    Assign {
        attempt: claimed.attempt.get(),
        build: claimed.build.get(),
        kind: kind.into(),
        derivation: claimed.derivation.to_string(),
        system: claimed.system.clone(),
        required_features: claimed.features.clone(),
        outputs: claimed
            .outputs
            .iter()
            .map(|(name, path)| ExpectedOutput { name: name.clone(), path: path.to_string() })
            .collect(),
        timeout_s: u64::try_from(claimed.timeout).unwrap_or(0),
        max_silent_s: u64::try_from(claimed.max_silent).unwrap_or(0),
        log_limit_bytes: policy.log_limit,
        output_limit_bytes: policy.output_limit,
        cores: 0,
        priority: u32::try_from(claimed.priority).unwrap_or(99),
        inputs: claimed
            .inputs
            .iter()
            .map(|input| Input {
                path: input.path.to_string(),
                nar_hash: input.nar_hash.clone().into(),
                nar_size: u64::try_from(input.nar_size).unwrap_or(0),
                sources: Vec::new(),
            })
            .collect(),
        sources: Vec::new(),
    }
}

pub(crate) fn measures(finished: &Finished) -> Measures {
    Measures {
        inputs_ms: Some(to_i64(finished.inputs_ms)),
        build_ms: Some(to_i64(finished.build_ms)),
        peak_memory: (finished.peak_memory_bytes > 0).then(|| to_i64(finished.peak_memory_bytes)),
        log_bytes: finished.log.as_ref().map(|log| to_i64(log.text_bytes)),
        exit_status: finished.exit_status,
    }
}

/// What a worker says of the end of an attempt, in a line.
pub(crate) fn result_message(finished: &Finished, class: AttemptClass) -> String {
    let message = one_line(&finished.message);
    if class == AttemptClass::MissingInputs && !finished.missing.is_empty() {
        return one_line(&format!("{message}: {}", finished.missing.join(", ")));
    }
    message
}

/// The outputs that a worker says it has built.
///
/// # Errors
/// What is wrong with them, in a line: no text gets further that the database could not take.
pub(crate) fn built_outputs(finished: &Finished) -> Result<Vec<BuiltOutput>, String> {
    let mut names = BTreeSet::new();
    finished
        .outputs
        .iter()
        .map(|output| {
            OutputName::parse(&output.name).map_err(|error| one_line(&error.to_string()))?;
            if !names.insert(output.name.as_str()) {
                return Err(format!("output `{}` is there twice", output.name));
            }
            let parse = |text: &String| {
                StorePath::parse(text).map_err(|error| one_line(&format!("`{text}`: {error}")))
            };
            if output.nar_hash.len() != 32 {
                return Err(format!(
                    "output `{}` has a hash of {} bytes",
                    output.name,
                    output.nar_hash.len()
                ));
            }
            Ok(BuiltOutput {
                name: output.name.clone(),
                path: parse(&output.path)?,
                nar_hash: output.nar_hash.to_vec(),
                nar_size: i64::try_from(output.nar_size).map_err(|_| "a size is too large".to_owned())?,
                references: output.references.iter().map(parse).collect::<Result<_, _>>()?,
            })
        })
        .collect()
}

pub(crate) fn to_i64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Makes a worker's text fit to be shown in a line: no control characters, no more than a few thousand bytes.
pub(crate) fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() > MESSAGE_LIMIT {
        let mut end = MESSAGE_LIMIT;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::proto::OutputInfo;

    use super::*;

    #[test]
    fn only_outputs_that_can_be_recorded_are_taken() {
        let good = OutputInfo {
            name: "out".to_owned(),
            path: "/nix/store/00000000000000000000000000000000-hello".to_owned(),
            nar_hash: vec![7; 32].into(),
            nar_size: 120,
            references: vec!["/nix/store/00000000000000000000000000000000-hello".to_owned()],
        };
        let read = |outputs: Vec<OutputInfo>| built_outputs(&Finished { outputs, ..Finished::default() });
        assert_eq!(read(vec![good.clone()]).unwrap().len(), 1);
        let spoilt: [fn(&mut OutputInfo); 8] = [
            |output| output.name = "out\0".to_owned(),
            |output| output.name = String::new(),
            |output| output.name = "a b".to_owned(),
            |output| output.path.push('\0'),
            |output| output.path = "/nix\0/store/00000000000000000000000000000000-hello".to_owned(),
            |output| output.references.push("/nix/store/00000000000000000000000000000000-a\0".to_owned()),
            |output| output.nar_hash = vec![7; 31].into(),
            |output| output.nar_size = u64::MAX,
        ];
        for (index, spoil) in spoilt.into_iter().enumerate() {
            let mut output = good.clone();
            spoil(&mut output);
            let problem = read(vec![output]).unwrap_err();
            assert!(!problem.chars().any(char::is_control), "{index}: {problem}");
        }
        read(vec![good.clone(), good]).unwrap_err();
    }
}
