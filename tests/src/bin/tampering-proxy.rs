//! An HTTP proxy that changes a byte of what passes: tampering-proxy LISTEN UPSTREAM PATH-PREFIX FLAG-FILE LOG
//!
//! Responses to requests whose path begins with the prefix have a byte in the middle of their body changed, as long as the flag
//! file exists. Each request is noted in the log as `PATH passed` or `PATH changed`.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};

#[derive(Debug)]
struct Settings {
    upstream: String,
    prefix: String,
    flag: PathBuf,
    log: PathBuf,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, prefix, flag, log] = arguments.as_slice() else {
        bail!("usage: tampering-proxy LISTEN UPSTREAM PATH-PREFIX FLAG-FILE LOG");
    };
    let settings = Arc::new(Settings {
        upstream: upstream.clone(),
        prefix: prefix.clone(),
        flag: PathBuf::from(flag),
        log: PathBuf::from(log),
    });
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    File::create(log).with_context(|| format!("making {log}"))?;
    for connection in listener.incoming() {
        let (connection, settings) = (connection?, Arc::clone(&settings));
        thread::spawn(move || {
            if let Err(error) = relay(&connection, &settings) {
                eprintln!("tampering-proxy: {error:#}");
            }
        });
    }
    Ok(())
}

/// Passes one request on and its answer back, then closes.
fn relay(client: &TcpStream, settings: &Settings) -> Result<()> {
    let mut from_client = BufReader::new(client);
    let mut request = String::new();
    from_client.read_line(&mut request)?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut upstream = TcpStream::connect(&settings.upstream).context("connecting to the upstream")?;
    upstream.write_all(request.as_bytes())?;
    for line in headers(&mut from_client)? {
        if !line.to_ascii_lowercase().starts_with("connection:") {
            upstream.write_all(line.as_bytes())?;
        }
    }
    upstream.write_all(b"Connection: close\r\n\r\n")?;

    let mut from_upstream = BufReader::new(upstream);
    let mut to_client = client;
    for line in headers(&mut from_upstream)? {
        to_client.write_all(line.as_bytes())?;
    }
    to_client.write_all(b"\r\n")?;
    let mut body = Vec::new();
    from_upstream.read_to_end(&mut body)?;
    let change = path.starts_with(&settings.prefix) && settings.flag.exists() && !body.is_empty();
    if change {
        let middle = body.len() / 2;
        body[middle] ^= 1;
    }
    note(&settings.log, &path, change)?;
    to_client.write_all(&body)?;
    Ok(())
}

/// Reads lines up to the empty one, which is left out.
fn headers(from: &mut impl BufRead) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(lines);
        }
        lines.push(line);
    }
}

fn note(log: &Path, path: &str, changed: bool) -> io::Result<()> {
    let mut log = OpenOptions::new().append(true).open(log)?;
    writeln!(log, "{path} {}", if changed { "changed" } else { "passed" })
}
