use axum::http::StatusCode;
use hauberk_store::Sha256;

use super::Farm;

/// Three products of build 2, of which two are files of a server's and one is refused.
const ROWS: &str = "
insert into product_requests (build_id, specification_id, output, path, type, state, message) values
 (2, 1, 'out', 'iso/*.iso', 'iso', 'taken', null),
 (2, 1, 'out', 'big', 'archive', 'refused', '`big` is larger than <7> bytes');
insert into build_products (build_id, request_id, type, path, name, file_size, sha256, server_id) values
 (2, 1, 'iso', '/nix/store/x/iso/<b>.iso', '<b>.iso', 100000, sha256('HERE'), 1),
 (2, 1, 'iso', '/nix/store/x/iso/gr\u{fc}n.iso', 'gr\u{fc}n.iso', 5, sha256('away'), 1),
 (2, 1, 'iso', '/nix/store/x/iso/lost.iso', 'lost.iso', 5, sha256('away'), 2);
";

async fn farm() -> (Farm, Vec<u8>) {
    let farm = Farm::new().await;
    let server = "insert into servers (name, host, backend_port, log_port, publish_url, version) \
                  values ('silent', 'h', 1, 2, null, '1')";
    farm.execute(server).await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let here = Sha256::digest(&bytes);
    farm.execute(&ROWS.replace("sha256('HERE')", &format!("'\\x{}'", here.to_base16()))).await;
    let directory = farm.cache.path().join("products");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join(here.to_base32()), &bytes).unwrap();
    (farm, bytes)
}

#[tokio::test]
async fn a_product_of_this_machine_is_sent() {
    let (farm, bytes) = farm().await;
    let whole = farm.get("/download/1").await;
    assert_eq!(whole.status, StatusCode::OK);
    assert!(whole.body == bytes);
    let tag = whole.headers["etag"].to_str().unwrap().to_owned();
    for (field, value) in [
        ("content-type", "application/vnd.efi.iso"),
        ("content-disposition", "attachment; filename=\"<b>.iso\""),
        ("content-length", "100000"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(whole.headers[field], value);
    }
    assert!(!whole.headers.contains_key("content-encoding"));
    let part = farm.get_with("/download/1", &[("range", "bytes=99990-"), ("if-range", &tag)]).await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers["content-range"], "bytes 99990-99999/100000");
    assert!(part.body == bytes[99_990..]);
    let other = farm.get_with("/download/1", &[("range", "bytes=0-0"), ("if-range", "\"x\"")]).await;
    assert_eq!((other.status, other.body.len()), (StatusCode::OK, 100_000));
    let known = farm.get_with("/download/1", &[("if-none-match", &tag)]).await;
    assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0));
    let beyond = farm.get_with("/download/1", &[("range", "bytes=100000-")]).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(beyond.headers["content-range"], "bytes */100000");
}

#[tokio::test]
async fn others_are_where_their_server_says() {
    let (farm, _) = farm().await;
    let answer = farm.get("/download/2").await;
    assert_eq!(answer.status, StatusCode::FOUND);
    let hash = Sha256::digest(b"away").to_base32();
    assert_eq!(
        answer.headers["location"],
        format!("http://head.example.org:5557/product/{hash}/gr%C3%BCn.iso")
    );
    let answer = farm.get("/download/3").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().contains("silent"), "{}", answer.text());
    assert_eq!(farm.get("/download/4").await.status, StatusCode::NOT_FOUND);
    assert_eq!(farm.get("/download/x").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pages_and_objects_list_them() {
    let (farm, _) = farm().await;
    let page = farm.page("/build/2/details").await;
    for words in [
        "<a href=\"/download/1\" title=\"/nix/store/x/iso/&#60;b&#62;.iso\" download>&#60;b&#62;.iso</a>",
        "sha256-",
        "larger than &#60;7&#62; bytes",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(!farm.page("/build/1/details").await.contains("Products"));
    let object = farm.get("/build/2").await.json();
    let product = &object["buildproducts"][0];
    assert_eq!(
        (&product["id"], &product["type"], &product["file-size"]),
        (&1.into(), &"iso".into(), &100_000.into())
    );
    assert_eq!(object["buildproducts"].as_array().unwrap().len(), 3);
    let query = |query: &str| format!("/search/latest/iso?query={query}");
    for (asked, found) in [
        ("", true),
        ("spec:demo+hello", true),
        ("spec:demo%20status:success%20job:hello.x86_64-linux", true),
        ("spec:other", false),
        ("zlib", false),
    ] {
        let answer = farm.get(&query(asked)).await;
        let expected = if found { StatusCode::FOUND } else { StatusCode::NOT_FOUND };
        assert_eq!(answer.status, expected, "{asked}");
        if found {
            assert_eq!(answer.headers["location"], "/download/1");
        }
    }
    assert_eq!(farm.get("/search/latest/pdf").await.status, StatusCode::NOT_FOUND);
}
