//! What the register is told.

use std::path::PathBuf;
use std::time::Duration;

use hauberk_database::ConnectionString;
use hauberk_publish::BaseUrl;

use crate::daemon::NixDaemon;
use crate::specification::Specification;
use crate::stores::{PushWhen, ServerUrl};

/// What the register is told: checked values.
#[derive(Debug, Clone)]
pub struct Config {
    /// The farm's database. An empty one gets the schema.
    pub database: ConnectionString,
    /// What to watch; see [`specification::read`](crate::specification::read). Specifications of the database that are not among them are
    /// not watched any more.
    pub specifications: Vec<Specification>,
    /// Time between two looks at the repositories of a specification that names no period.
    pub interval: Duration,
    /// Whether to look at each specification once and to end.
    pub one_shot: bool,
    /// A folder of its own: mirrors, checkouts, evaluation logs, roots. Made if it is not there.
    pub state_directory: PathBuf,
    /// The daemon of the store that evaluations write to.
    pub daemon: NixDaemon,
    /// What these servers have needs no build.
    pub substitute_urls: Vec<BaseUrl>,
    /// When derivations are pushed to servers.
    pub push: PushWhen,
    /// Where servers are reached, if not where they say.
    pub server_urls: Vec<ServerUrl>,
    /// How long a server that cannot be reached is tried before an evaluation is given up for now.
    pub push_patience: Duration,
}
