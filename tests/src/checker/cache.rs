//! Every output of a build that succeeded must be in the cache, signed and with the hash the tables have.

use std::fs;

use anyhow::{Context, Result, bail};
use hauberk_publish::Cache;
use hauberk_store::{Sha256, StoreDirectory, StorePath, narinfo::Compression};

use super::{Checker, Findings};
use crate::tables::Tables;

/// What the farm vouches for.
const OUTPUTS: &str = "
select o.path, o.nar_hash, v.name from outputs o join builds b on b.id = o.build_id left join servers v on v.id = o.server_id
where b.state = 'succeeded' and o.nar_hash is not null";

impl Checker {
    pub(super) async fn check_outputs(&mut self, tables: &Tables, findings: &mut Findings) -> Result<()> {
        for row in tables.query(OUTPUTS, &[]).await? {
            let path: String = row.get(0);
            if self.read_outputs.contains(&path) {
                continue;
            }
            match self.check_output(row.get(2), &path, row.get(1)) {
                Ok(()) => {
                    self.read_outputs.insert(path);
                }
                Err(error) => {
                    findings
                        .push("an output is not in the cache as it must be", format!("{path}: {error:#}"));
                }
            }
        }
        Ok(())
    }

    fn check_output(&self, server: Option<&str>, path: &str, nar_hash: &[u8]) -> Result<()> {
        let (directory, key) = self.place(server);
        let cache = Cache::open(directory, &StoreDirectory::nix())?;
        let path = StorePath::parse(path)?;
        let narinfo = cache.narinfo(&path.hash())?.context("it has no narinfo")?;
        if narinfo.store_path != path || narinfo.nar_hash.as_bytes() != nar_hash {
            bail!("its narinfo is another's");
        }
        narinfo.verify(std::slice::from_ref(key)).context("its narinfo is not signed by the server")?;
        let url = narinfo.urls.first().context("its narinfo names no nar")?;
        let nar = fs::read(directory.join(&url.url)).with_context(|| format!("reading {}", url.url))?;
        let nar = match &url.compression {
            Compression::None => nar,
            Compression::Zstd => zstd::decode_all(nar.as_slice()).context("unpacking its nar")?,
            other => bail!("its nar is compressed as {other:?}, which the server does not do"),
        };
        if Sha256::digest(&nar) != narinfo.nar_hash {
            bail!("its nar is not what the narinfo says");
        }
        Ok(())
    }
}
