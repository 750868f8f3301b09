//! Setting the options of the session.

use tokio::io::{AsyncRead, AsyncWrite};

use super::Connection;
use crate::{
    error::DaemonError, operation::Operation, options::ClientOptions, version::Dialect, wire::Encoder,
};

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection<S> {
    pub(super) async fn do_set_options(&mut self, options: &ClientOptions) -> Result<(), DaemonError> {
        let mut call = self.call(Operation::SetOptions)?;
        match call.dialect() {
            Dialect::Nix => nix(options, &mut call.request),
            Dialect::Guix => guix(options, &mut call.request),
        }
        call.exchange().await?.end(());
        self.options = Some(options.clone());
        Ok(())
    }
}

fn pairs(encoder: &mut Encoder, pairs: &[(&str, String)]) {
    encoder.pairs(pairs.iter().map(|(name, value)| (*name, value.as_str())));
}

/// Lays the options out for Nix: numbers first, then settings by name.
fn nix(options: &ClientOptions, request: &mut Encoder) {
    let seconds = |limit: Option<std::time::Duration>| limit.map_or(0, |limit| limit.as_secs());
    request
        .flag(options.keep_failed)
        .flag(options.keep_going)
        .flag(options.fallback)
        .number(u64::from(options.verbosity))
        .number(u64::from(options.max_jobs.unwrap_or(1)))
        .number(seconds(options.max_silent))
        .number(1) // obsolete: use build hook
        .number(7) // builders' output comes by activities, not among the daemon's words a second time
        .number(0) // obsolete: log type
        .number(0) // obsolete: print build trace
        .number(u64::from(options.cores.unwrap_or(0)))
        .flag(options.use_substitutes);
    let mut settings = vec![("timeout", seconds(options.timeout).to_string())];
    if !options.offload {
        settings.push(("builders", String::new()));
    }
    if let Some(bytes) = options.max_log_size {
        settings.push(("max-build-log-size", bytes.to_string()));
    }
    if let Some(urls) = &options.substitute_urls {
        settings.push(("substituters", urls.join(" ")));
    }
    if options.rounds > 1 {
        settings.push(("repeat", (options.rounds - 1).to_string()));
    }
    settings.extend(options.extra.iter().map(|(name, value)| (name.as_str(), value.clone())));
    pairs(request, &settings);
}

/// Lays the options out for Guix, the pairs in the order of its own client.
fn guix(options: &ClientOptions, request: &mut Encoder) {
    let own = &options.guix;
    request
        .flag(options.keep_failed)
        .flag(options.keep_going)
        .flag(options.fallback)
        .number(u64::from(options.verbosity))
        .flag(options.offload)
        .number(u64::from(own.build_verbosity))
        .number(0) // log type
        .flag(own.build_trace)
        .flag(options.use_substitutes);
    let mut settings = Vec::new();
    if own.build_trace {
        settings.push(("print-extended-build-trace", u8::from(own.extended_trace).to_string()));
    }
    if own.multiplexed_output {
        settings.push(("multiplexed-build-output", "true".to_owned()));
    }
    if let Some(limit) = options.timeout {
        settings.push(("build-timeout", limit.as_secs().to_string()));
    }
    if let Some(limit) = options.max_silent {
        settings.push(("build-max-silent-time", limit.as_secs().to_string()));
    }
    if let Some(jobs) = options.max_jobs {
        settings.push(("build-max-jobs", jobs.to_string()));
    }
    if let Some(cores) = options.cores {
        settings.push(("build-cores", cores.to_string()));
    }
    if let Some(urls) = &options.substitute_urls {
        settings.push(("substitute-urls", urls.join(" ")));
    }
    if options.rounds > 1 {
        settings.push(("build-repeat", (options.rounds - 1).to_string()));
    }
    if let Some(name) = &own.user_name {
        settings.push(("user-name", name.clone()));
    }
    if let Some(columns) = own.terminal_columns {
        settings.push(("terminal-columns", columns.to_string()));
    }
    if let Some(locale) = &own.locale {
        settings.push(("locale", locale.clone()));
    }
    settings.extend(options.extra.iter().map(|(name, value)| (name.as_str(), value.clone())));
    pairs(request, &settings);
}
