//! Finding the server by mDNS.

use anyhow::Result;
use hauberk_tests::{Deadline, Farm, FarmConfig, Launch};

/// Runs dbus and avahi on a machine, with run directories of their own, and keeps listing the service.
const AVAHI: &str = r#"
set -eu
mount -t tmpfs tmpfs /run
mkdir -p /run/dbus /run/avahi-daemon
dbus-daemon --system --fork --nopidfile
avahi-daemon --no-drop-root --no-rlimits --no-chroot --daemonize
exec stdbuf -oL avahi-browse --resolve --parsable _hauberk._tcp
"#;

#[tokio::test]
async fn avahi_sees_the_server_and_a_late_server_is_found() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let key = farm.server_signing_key().to_owned();
    let observer = farm.user_machine("observer", &key)?;
    let mut avahi: hauberk_tests::Process = {
        let launch: Launch =
            observer.command("unshare").args(["--mount", "--propagation", "private", "bash", "-c", AVAHI]);
        launch.start("avahi", farm.directory())?
    };

    // The worker is there first: nobody answers, and it goes on looking.
    let host = &mut farm.workers[0];
    let log_directory = host.machine.directory().to_owned();
    host.process = Some(host.launch.start(host.name(), &log_directory)?);
    farm.start_server()?;
    farm.workers[0].process()?.wait_ready(Deadline::seconds(60))?;
    farm.wait_until_joined(0).await?;

    // What avahi resolves: =;interface;protocol;name;type;domain;host;address;port;"text" ...
    let address = "10.77.0.1";
    avahi.wait_log(&format!(";{address};5555;"), Deadline::seconds(30))?;
    let text = avahi.log_text();
    let line = text
        .lines()
        .find(|line| line.starts_with('=') && line.contains(&format!(";{address};5555;")))
        .expect("it was waited for");
    let public_key = std::fs::read_to_string(farm.key_file("server.curve.pub"))?;
    for wanted in ["5556", "5557", "/nix/store", public_key.trim()] {
        // Avahi escapes some characters of a key by their decimal code.
        assert!(unescape(line).contains(wanted), "{wanted} is not in {line}");
    }

    // A server that ends in order takes its announcement back.
    if let Some(mut server) = farm.server.take() {
        server.stop(Deadline::seconds(40))?;
    }
    avahi.wait_log("-;eth0;IPv4;", Deadline::seconds(30))?;
    farm.stop_all()
}

/// Undoes avahi's `\DDD` and `\C`.
fn unescape(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            result.push(character);
            continue;
        }
        let following: String = rest.clone().take(3).collect();
        if let Ok(code) = following.parse::<u8>() {
            result.push(char::from(code));
            rest.nth(2);
        } else {
            result.extend(rest.next());
        }
    }
    result
}
