//! Which files of builds a specification offers for download.

use hauberk_database::registration::{NewProduct, Registration};
use regex_lite::Regex;

use crate::specification::BuildOutput;

/// Gives the products of all jobs that match.
pub(crate) fn wanted(build_outputs: &[BuildOutput], registration: &Registration) -> Vec<NewProduct> {
    let mut products = Vec::new();
    for wanted in build_outputs {
        // It was checked when the specification was read.
        let Ok(jobs) = Regex::new(wanted.job.as_str()) else { continue };
        products.extend(registration.jobs.iter().filter(|job| jobs.is_match(&job.name)).map(|job| {
            NewProduct {
                build: job.build,
                output: wanted.output.to_string(),
                path: wanted.path.to_string(),
                kind: wanted.kind.to_string(),
            }
        }));
    }
    products
}

#[cfg(test)]
mod tests {
    use hauberk_database::Level;
    use hauberk_database::registration::NewJob;

    use super::*;

    #[test]
    fn every_job_that_matches_gives_them() {
        let build_outputs: Vec<BuildOutput> = serde_json::from_value(serde_json::json!([
            { "job": "^image-.*linux$", "type": "image", "path": "*.iso" },
            { "job": "image", "type": "all" },
        ]))
        .unwrap();
        let job = |(build, name): (usize, &str)| NewJob {
            name: name.to_owned(),
            build,
            priority: Level::default(),
        };
        let names = ["image-a.x86_64-linux", "image-b.aarch64-linux", "my-image", "hello"];
        let jobs = names.into_iter().enumerate().map(job).collect();
        let registration = Registration { jobs, ..Registration::default() };
        let wanted: Vec<_> = wanted(&build_outputs, &registration)
            .into_iter()
            .map(|product| (product.build, product.kind, product.path, product.output))
            .collect();
        let text =
            |build, kind: &str, path: &str| (build, kind.to_owned(), path.to_owned(), "out".to_owned());
        assert_eq!(
            wanted,
            [
                text(0, "image", "*.iso"),
                text(1, "image", "*.iso"),
                text(0, "all", ""),
                text(1, "all", ""),
                text(2, "all", ""),
            ]
        );
    }
}
