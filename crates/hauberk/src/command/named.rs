//! Builds as operators name them: by number, by derivation, or by an output.

use anyhow::anyhow;
use hauberk_database::{BuildId, GenericClient, pages};

use crate::exit::Failure;

/// Finds the build of each name: a number, the path of a derivation, or that of an output, with its directory or without.
/// Each is given once, in the order named.
pub(crate) async fn find_builds(
    client: &impl GenericClient,
    names: &[String],
) -> Result<Vec<BuildId>, Failure> {
    let mut builds = Vec::with_capacity(names.len());
    for name in names {
        let build = find_build(client, name).await?;
        if !builds.contains(&build) {
            builds.push(build);
        }
    }
    Ok(builds)
}

/// Finds the build of a name, which may be a number that no build has.
pub(crate) async fn find_build(client: &impl GenericClient, name: &str) -> Result<BuildId, Failure> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let base = name.rsplit('/').next().unwrap_or_default();
    // Of a path inside an output, the output is meant.
    let base = store_item(name).unwrap_or(base);
    let found = if base.ends_with(".drv") {
        pages::build_of_derivation(client, base).await?
    } else {
        pages::output(client, base).await?.map(|output| output.build)
    };
    found.ok_or_else(|| {
        Failure::configuration(anyhow!(
            "`{name}` is no build: give its number, its derivation (…-NAME.drv) or one of its outputs; \
             `hauberk build list --name 'NAME*'` finds builds by name"
        ))
    })
}

/// Gives the item of `/gnu/store/ITEM/…` or `/nix/store/ITEM/…`.
fn store_item(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/gnu/store/").or_else(|| path.strip_prefix("/nix/store/"))?;
    rest.split('/').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_inside_an_item_name_the_item() {
        assert_eq!(store_item("/gnu/store/abc-hello/bin/hello"), Some("abc-hello"));
        assert_eq!(store_item("/nix/store/abc-hello.drv"), Some("abc-hello.drv"));
        assert_eq!(store_item("abc-hello"), None);
    }
}
