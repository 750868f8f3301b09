//! Servers and workers that find each other, among themselves and through Avahi.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hauberk_discovery::{Advertisement, Advertiser, Browser, Discovery, Found, Interfaces};
use hauberk_protocol::keys::CurveKeyPair;
use hauberk_protocol::socket::{
    ClientSecurity, ConnectionEvent, Context, DealerEvent, DealerOptions, DealerSocket, RouterOptions,
    RouterSocket, ServerSecurity,
};

use support::{Avahi, Running, in_namespace, make_network, run, until};

fn advertisement(instance: &str) -> Advertisement {
    Advertisement {
        instance: instance.to_owned(),
        farm: "example".to_owned(),
        version: "0.1.0".to_owned(),
        backend_port: 5555,
        log_port: Some(5556),
        publish_port: Some(5557),
        store_directories: vec!["/gnu/store".to_owned(), "/nix/store".to_owned()],
        server_key: Some(*CurveKeyPair::generate().public()),
    }
}

/// The network of [`make_network`], without its other end, on which the same is heard.
fn lan() -> Interfaces {
    Interfaces::Named(vec!["lan0".to_owned()])
}

async fn find(browser: &mut Browser, instance: &str) -> Found {
    loop {
        match browser.next().await.unwrap() {
            Discovery::Found(found) if found.advertisement.instance == instance => return found,
            Discovery::Found(_) | Discovery::Removed { .. } => {}
        }
    }
}

async fn removed(browser: &mut Browser, name: &str) {
    loop {
        match browser.next().await.unwrap() {
            Discovery::Removed { instance } if instance == name => return,
            Discovery::Found(_) | Discovery::Removed { .. } => {}
        }
    }
}

fn port_of(address: &str) -> SocketAddr {
    format!("{address}:5555").parse().unwrap()
}

#[test]
fn a_server_is_found_over_loopback_and_says_goodbye() {
    in_namespace("a_server_is_found_over_loopback_and_says_goodbye", async || {
        let mut early = Browser::start(&Interfaces::Loopback).unwrap();
        let mut wanted = advertisement("north.example");
        let advertiser = Advertiser::start(&wanted, &Interfaces::Loopback).unwrap();
        wanted.instance = "north-example".to_owned();
        let found = find(&mut early, "north-example").await;
        assert_eq!(found.advertisement, wanted);
        assert_eq!(found.addresses[0], port_of("127.0.0.1"));
        assert_eq!(early.known().count(), 1);

        let mut late = Browser::start(&Interfaces::All).unwrap();
        let began = Instant::now();
        assert_eq!(find(&mut late, "north-example").await.advertisement, wanted);
        assert!(began.elapsed() < Duration::from_secs(5));

        // Another of the same name is told apart.
        let mut second = advertisement("north.example");
        second.backend_port = 6666;
        let other = Advertiser::start(&second, &Interfaces::Loopback).unwrap();
        let renamed = find(&mut late, "north-example (2)").await;
        assert_eq!(renamed.addresses[0].port(), 6666);

        let began = Instant::now();
        advertiser.stop().await;
        removed(&mut early, "north-example").await;
        removed(&mut late, "north-example").await;
        drop(other);
        removed(&mut early, "north-example (2)").await;
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "goodbyes are heard at once, not when records expire"
        );
        assert_eq!(early.known().count(), 0);
    });
}

#[test]
fn loopback_only_does_not_reach_the_network() {
    in_namespace("loopback_only_does_not_reach_the_network", async || {
        let _avahi = Avahi::start().await;
        let hidden = Advertiser::start(&advertisement("hidden"), &Interfaces::Loopback).unwrap();
        let shown = Advertiser::start(&advertisement("shown"), &lan()).unwrap();
        let mut listing = String::new();
        until("Avahi sees the server", || {
            listing = run(&["avahi-browse", "-pt", "_hauberk._tcp"]);
            listing.contains(";shown;")
        })
        .await;
        let mut local = Browser::start(&Interfaces::Loopback).unwrap();
        find(&mut local, "hidden").await;
        listing = run(&["avahi-browse", "-pt", "_hauberk._tcp"]);
        assert!(!listing.contains("hidden"), "{listing}");
        assert!(local.known().all(|found| found.advertisement.instance == "hidden"));
        hidden.stop().await;
        shown.stop().await;
    });
}

#[test]
fn avahi_sees_all_that_a_server_says() {
    in_namespace("avahi_sees_all_that_a_server_says", async || {
        let _avahi = Avahi::start().await;
        let advertisement = advertisement("north");
        let advertiser = Advertiser::start(&advertisement, &Interfaces::All).unwrap();
        let mut line = None;
        until("Avahi resolves the server", || {
            let listing = run(&["avahi-browse", "-rpt", "_hauberk._tcp"]);
            line = listing.lines().find(|line| line.starts_with("=;lan0;IPv4;north;")).map(str::to_owned);
            line.is_some()
        })
        .await;
        let line = line.unwrap();
        // Interface, protocol, name, type, domain, host, address, port, and the TXT strings; a key may contain anything.
        let fields: Vec<&str> = line.splitn(10, ';').collect();
        assert_eq!(fields[4..6], ["_hauberk._tcp", "local"]);
        assert_eq!(fields[7..9], ["10.99.0.1", "5555"]);
        for (key, value) in advertisement.to_properties().unwrap() {
            assert!(fields[9].contains(&format!("\"{key}={value}\"")), "no {key} in {line}");
        }
        assert!(fields[9].contains(&format!("\"key={}\"", advertisement.server_key.unwrap())), "{line}");
        advertiser.stop().await;
        until("Avahi forgets the server", || {
            !run(&["avahi-browse", "-pt", "_hauberk._tcp"]).contains("north")
        })
        .await;
    });
}

#[test]
fn a_server_that_avahi_announces_is_found() {
    in_namespace("a_server_that_avahi_announces_is_found", async || {
        let _avahi = Avahi::start().await;
        let key = CurveKeyPair::generate().public().to_string();
        let publish = |name: &str, key: &str| {
            let key = format!("key={key}");
            let texts = ["farm=static", "version=9", "log-port=1", "store=/nix/store", "new-thing=1", &key];
            Running::start(&[&["avahi-publish", "-s", name, "_hauberk._tcp", "4444"], &texts[..]].concat())
        };
        let _malformed = publish("malformed", "nonsense");
        let published = publish("by hand", &key);
        let mut browser = Browser::start(&lan()).unwrap();
        let found = find(&mut browser, "by hand").await;
        assert_eq!(found.advertisement.farm, "static");
        assert_eq!(found.advertisement.backend_port, 4444);
        assert_eq!(found.advertisement.log_port, Some(1));
        assert_eq!(found.advertisement.publish_port, None);
        assert_eq!(found.advertisement.store_directories, ["/nix/store"]);
        assert_eq!(found.advertisement.server_key.unwrap().to_string(), key);
        // Addresses come one after the other; the one that needs its link comes last, and says which.
        let mut addresses = found.addresses;
        while addresses.len() < 2 {
            addresses = find(&mut browser, "by hand").await.addresses;
        }
        assert_eq!(addresses[0], "10.99.0.1:4444".parse().unwrap());
        let SocketAddr::V6(link_local) = addresses[1] else { panic!("{addresses:?}") };
        assert!(link_local.ip().is_unicast_link_local());
        let link = run(&["ip", "-oneline", "link", "show", "lan0"]);
        assert!(link.starts_with(&format!("{}:", link_local.scope_id())), "{link_local} is not on {link}");
        drop(published);
        removed(&mut browser, "by hand").await;
        assert!(browser.known().all(|found| found.advertisement.instance != "malformed"));
    });
}

#[test]
fn a_worker_connects_to_each_address_it_found() {
    in_namespace("a_worker_connects_to_each_address_it_found", async || {
        make_network();
        let context = Context::new();
        let (server, worker) = (CurveKeyPair::generate(), CurveKeyPair::generate());
        let options = RouterOptions::backend();
        let any = "[::]:0".parse().unwrap();
        let mut router = RouterSocket::bind(&context, any, ServerSecurity::Curve(&server), &options).unwrap();
        let mut announced = advertisement("north");
        announced.backend_port = router.endpoint().port();
        announced.server_key = Some(*server.public());
        let advertiser = Advertiser::start(&announced, &lan()).unwrap();
        let mut browser = Browser::start(&lan()).unwrap();
        let mut found = find(&mut browser, "north").await;
        while found.addresses.len() < 2 {
            found = find(&mut browser, "north").await;
        }
        assert_eq!(found.addresses[0].ip().to_string(), "10.99.0.1");
        assert!(matches!(found.addresses[1], SocketAddr::V6(link_local) if link_local.scope_id() != 0));
        for endpoint in found.addresses {
            let security =
                ClientSecurity::Curve { keys: &worker, server: &found.advertisement.server_key.unwrap() };
            let mut dealer =
                DealerSocket::connect(&context, endpoint, security, &DealerOptions::backend()).unwrap();
            // The link's own address can be connected to only once the system has made sure that it is unique.
            while dealer.next().await.unwrap() != DealerEvent::Connection(ConnectionEvent::Connected) {}
            dealer.send(b"hello").await.unwrap();
            let incoming = router.recv().await.unwrap();
            assert_eq!(incoming.user.as_ref(), Some(worker.public()));
            assert_eq!(incoming.peer_address, Some(endpoint.ip()));
        }
        advertiser.stop().await;
    });
}

#[test]
fn a_server_behind_a_healed_partition_is_found_soon() {
    in_namespace("a_server_behind_a_healed_partition_is_found_soon", async || {
        run(&["nft", "add", "table", "inet", "cut"]);
        run(&["nft", "add chain inet cut f { type filter hook input priority 0; }"]);
        run(&["nft", "add rule inet cut f udp dport 5353 drop"]);
        let interval = Duration::from_millis(500);
        let mut browser = Browser::start_with_interval(&Interfaces::Loopback, interval).unwrap();
        let mut passive = Browser::start(&Interfaces::Loopback).unwrap();
        passive.set_searching(false);
        let advertiser = Advertiser::start(&advertisement("north"), &Interfaces::Loopback).unwrap();
        // By then the server has announced itself in vain, and mDNS by itself would ask again 16 s after its start.
        let cut = tokio::time::timeout(Duration::from_secs(9), find(&mut browser, "north")).await;
        assert!(cut.is_err(), "the partition is none");
        run(&["nft", "delete", "table", "inet", "cut"]);
        let healed = Instant::now();
        find(&mut browser, "north").await;
        assert!(healed.elapsed() < Duration::from_secs(4), "found only after {:?}", healed.elapsed());
        passive.set_searching(true);
        find(&mut passive, "north").await;
        advertiser.stop().await;
    });
}
