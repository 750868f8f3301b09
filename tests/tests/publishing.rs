//! What others get of a server: a substitute server that is told of what was fetched, clients that speak TLS, and those of sockets that are no port
//! of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use hauberk_tests::{Deadline, Farm, FarmConfig, Launch, Machine, Process, wait_for};

const GRAPH: &str = r#"
  library = job "library-1" "echo a word of the log; mkdir $out; echo library > $out/library";
  program = job "program-1" "mkdir $out; echo ${library} > $out/needs";
"#;

/// The port of a substitute server that knows nothing.
const STRANGER: u16 = 8099;

fn hash_part(output: &str) -> Result<&str> {
    let name = output.rsplit('/').next().context("it is a path")?;
    name.split('-').next().context("it has a hash")
}

#[tokio::test]
async fn another_substitute_server_is_asked_for_what_was_fetched() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let empty = farm.directory().join("empty");
    fs::create_dir(&empty)?;
    let mut stranger = farm
        .server_machine
        .command("busybox")
        .args(["httpd", "-f", "-vv", "-p", &format!("127.0.0.1:{STRANGER}"), "-h"])
        .arg(&empty)
        .start("stranger", farm.directory())?;
    let url = format!("http://127.0.0.1:{STRANGER}");
    let mut server = farm
        .server_launch()
        .args(["--trigger-substitute-url", &url])
        .start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    farm.start_worker(0)?;
    let (_, specification) = farm.repository("publishing", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("program-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    for build in ["library-1", "program-1"] {
        let output = farm.output_of(build).await?;
        let asked = format!("url:/{}.narinfo", hash_part(&output)?);
        stranger.wait_log(&asked, Deadline::seconds(30))?;
    }
    let said = stranger.log_text();
    assert_eq!(said.matches("url:").count(), 2, "once for each output: {said}");
    stranger.kill9()?;
    farm.stop_all()
}

/// Makes a certificate of the server's address, and an authority that has signed it.
fn certificates(farm: &Farm, address: &str) -> Result<(PathBuf, PathBuf, PathBuf)> {
    let place = |name: &str| farm.directory().join(name);
    let (authority, authority_key) = (place("ca.pem"), place("ca.key"));
    let (certificate, key, request) = (place("server.pem"), place("server.key"), place("server.csr"));
    let extension = place("server.ext");
    fs::write(&extension, format!("subjectAltName = IP:{address}\nbasicConstraints = CA:FALSE\n"))?;
    let openssl = || Launch::here("openssl");
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    openssl()
        .args(new)
        .args(["-x509", "-days", "2", "-subj", "/CN=Laboratory", "-keyout"])
        .arg(&authority_key)
        .arg("-out")
        .arg(&authority)
        .run()?;
    openssl().args(new).args(["-subj", "/CN=server", "-keyout"]).arg(&key).arg("-out").arg(&request).run()?;
    openssl()
        .args(["x509", "-req", "-days", "2", "-CAcreateserial", "-in"])
        .arg(&request)
        .arg("-CA")
        .arg(&authority)
        .arg("-CAkey")
        .arg(&authority_key)
        .arg("-extfile")
        .arg(&extension)
        .arg("-out")
        .arg(&certificate)
        .run()?;
    Ok((authority, certificate, key))
}

#[tokio::test]
async fn clients_get_substitutes_by_tls() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    farm.start_all().await?;
    let (_, specification) = farm.repository("publishing", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("program-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let (program, library) = (farm.output_of("program-1").await?, farm.output_of("library-1").await?);
    farm.stop_all()?;

    let plain = farm.publish_url();
    let url = plain.replace("http://", "https://");
    let address =
        url.trim_start_matches("https://").split(':').next().context("it has an address")?.to_owned();
    let (authority, certificate, key) = certificates(&farm, &address)?;
    let mut server = farm
        .hauberk_on_server()
        .args(["remote-server", "--database", &farm.postgres.connection_string(), "--cache"])
        .arg(farm.cache())
        .arg("--signing-key")
        .arg(farm.key_file("server.signing"))
        .arg("--curve-key")
        .arg(farm.key_file("server.curve"))
        .args(["--publish-url", &url, "--publish-tls-certificate"])
        .arg(&certificate)
        .arg("--publish-tls-key")
        .arg(&key)
        .start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);

    let signing = farm.server_signing_key().to_owned();
    let user = farm.user_machine("user", &signing)?;
    let info = format!("{url}/nix-cache-info");
    let curl = |options: &[&str], url: &str| {
        user.command("curl").args(["--silent", "--show-error", "--max-time", "20"]).args(options).arg(url)
    };
    let trusted = ["--fail", "--cacert", &authority.display().to_string()];
    ensure!(curl(&trusted, &info).run()?.contains("StoreDir: /nix/store"));
    // An authority that nobody knows is not believed, and the port speaks nothing else.
    ensure!(curl(&["--fail"], &info).output()?.status.code() == Some(60), "an unknown authority is believed");
    ensure!(!curl(&["--fail"], &format!("{plain}/nix-cache-info")).output()?.status.success());
    let old = [&trusted[..], &["--tls-max", "1.1"]].concat();
    ensure!(!curl(&old, &info).output()?.status.success(), "an old TLS is spoken");
    // The stock client, with all that the program refers to.
    let nix = |arguments: &[&str]| {
        user.command("nix")
            .env("NIX_SSL_CERT_FILE", &authority)
            .args(["--extra-experimental-features", "nix-command"])
            .args(arguments)
    };
    ensure!(!user.outside(&program).exists());
    nix(&["copy", "--from", &url, &program]).run()?;
    for output in [&program, &library] {
        ensure!(user.outside(output).exists(), "{output} did not come");
    }
    nix(&["path-info", "--store", &url, &program]).run()?;
    let other = user
        .command("nix")
        .args(["--extra-experimental-features", "nix-command", "path-info", "--store", &url, &program])
        .output()?;
    ensure!(!other.status.success(), "Nix believes an unknown authority");
    farm.stop_all()
}

/// Starts nginx in front of a socket, at a port of the server's machine.
fn start_nginx(farm: &Farm, socket: &Path, port: u16) -> Result<Process> {
    let place = |name: &str| farm.directory().join(name).display().to_string();
    let config = farm.directory().join("nginx.conf");
    let text = format!(
        "daemon off; master_process off; error_log stderr; pid {};\n\
         events {{ }}\n\
         http {{ access_log off; client_body_temp_path {}; proxy_temp_path {}; fastcgi_temp_path {}; uwsgi_temp_path {}; scgi_temp_path {};\n\
         server {{ listen {port}; location / {{ proxy_pass http://unix:{}:; }} }} }}\n",
        place("nginx.pid"),
        place("nginx-body"),
        place("nginx-proxy"),
        place("nginx-fastcgi"),
        place("nginx-uwsgi"),
        place("nginx-scgi"),
        socket.display(),
    );
    fs::write(&config, text)?;
    let launch = farm.server_machine.command("nginx").arg("-c").arg(&config);
    let process = launch.start("nginx", farm.directory())?;
    wait_for("nginx listens", Deadline::seconds(20), || {
        let url = format!("http://127.0.0.1:{port}/health");
        let asked = farm.server_machine.command("curl").args(["--silent", "--fail", &url]).output()?;
        Ok(asked.status.success().then_some(()))
    })?;
    Ok(process)
}

#[tokio::test]
async fn sockets_of_the_machine_and_of_systemd_are_served() -> Result<()> {
    let mut farm = Farm::create(FarmConfig { workers: 1, ..FarmConfig::new()? })?;
    let (own, handed) = (farm.directory().join("own.socket"), farm.directory().join("handed.socket"));
    let launch = farm.server_launch().arg("--publish-socket").arg(&own);
    let mut server = launch.start("remote-server", farm.directory())?;
    server.wait_ready(Deadline::seconds(60))?;
    farm.server = Some(server);
    farm.start_worker(0)?;
    let (_, specification) = farm.repository("publishing", GRAPH)?;
    farm.start_register(&[specification])?;
    farm.wait_for_build("program-1", &["succeeded"], Deadline::seconds(90)).await?;
    farm.wait_for_the_end(Deadline::seconds(60)).await?;
    let (program, library) = (farm.output_of("program-1").await?, farm.output_of("library-1").await?);
    let ask = |farm: &Farm, socket: &Path, path: &str| {
        let url = format!("http://farm/{path}");
        let curl = ["--silent", "--show-error", "--fail", "--max-time", "60", "--unix-socket"];
        farm.server_machine.command("curl").args(curl).arg(socket).arg(url).run()
    };
    let narinfo = format!("{}.narinfo", hash_part(&program)?);
    ensure!(ask(&farm, &own, &narinfo)?.contains(&format!("StorePath: {program}\n")));

    // The stock client, by a web server in front.
    let mut nginx = start_nginx(&farm, &own, 8080)?;
    let key = farm.server_signing_key().to_owned();
    let user = farm.user_machine("user", &key)?;
    let front = farm.publish_url().replace(":5557", ":8080");
    let copy = |user: &Machine, from: &str| {
        let options = ["--extra-experimental-features", "nix-command", "copy", "--from", from];
        user.command("nix").args(options).arg(&program).run()
    };
    copy(&user, &front)?;
    for output in [&program, &library] {
        ensure!(user.outside(output).exists(), "{output} did not come");
    }
    nginx.kill9()?;
    farm.server.as_mut().context("the server was started")?.stop(Deadline::seconds(60))?;

    // Started by the first client of a port and a socket that somebody else holds.
    let mut server = farm
        .server_machine
        .command("systemd-socket-activate")
        .args(["--listen", "5557", "--listen"])
        .arg(&handed)
        .args(farm.server_launch().words())
        .args(["--pack", "zstd:5", "--pack-threads", "1"])
        .start("activated-server", farm.directory())?;
    server.wait_log("Listening on", Deadline::seconds(30))?;
    ensure!(!server.log_text().contains("serves: workers on"), "nobody has asked yet: {}", server.log_text());
    ensure!(ask(&farm, &handed, &narinfo)?.contains(&format!("StorePath: {program}\n")));
    server.wait_log("serves: workers on 5555, logs on 5556, substitutes on 5557", Deadline::seconds(30))?;
    let other = farm.user_machine("other", &key)?;
    copy(&other, &farm.publish_url())?;
    ensure!(other.outside(&library).exists(), "{library} did not come");
    // Logs, as stock Nix asks for them: by what came of the build.
    let options =
        ["--extra-experimental-features", "nix-command", "log", "--store", &farm.publish_url(), &library];
    let log = user.command("nix").args(options).run()?;
    ensure!(log.contains("a word of the log"), "{log}");

    // What lies in the store of the server's machine is packed when it is asked for, in each way that it is to be.
    let file = farm.directory().join("text.nix");
    let expression =
        r#"builtins.toFile "text" (builtins.concatStringsSep "\n" (builtins.genList toString 20000))"#;
    fs::write(&file, expression)?;
    let evaluate = ["--extra-experimental-features", "nix-command", "eval", "--raw", "--file"];
    let text = farm.server_machine.command("nix").args(evaluate).arg(&file).run()?;
    let narinfo = format!("{}.narinfo", hash_part(&text)?);
    let first = ask(&farm, &handed, &narinfo)?;
    ensure!(first.contains("Compression: none"), "{first}");
    let packed = wait_for("it is packed", Deadline::seconds(60), || {
        let told = ask(&farm, &handed, &narinfo)?;
        Ok((!told.contains("Compression: none")).then_some(told))
    })?;
    ensure!(packed.contains("Compression: zstd") && packed.contains("FileSize: "), "{packed}");
    let options =
        ["--extra-experimental-features", "nix-command", "copy", "--from", &farm.publish_url(), &text];
    user.command("nix").args(options).run()?;
    ensure!(fs::read(user.outside(&text))? == fs::read(farm.server_machine.outside(&text))?);
    // It is in the farm as any other.
    farm.server = Some(server);
    farm.wait_until_joined(0).await?;
    farm.stop_all()
}
