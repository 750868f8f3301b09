//! Whether a browser says that a request comes from a page of ours.

use axum::http::{HeaderMap, HeaderName, header};

/// What browsers say about the page that a request comes from, to hosts that they trust with it.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Tells whether a request comes from a page of ours: the browser says so (`Sec-Fetch-Site`), or names our own address as its origin.
/// A request about which nothing is said does not.
pub(super) fn is_ours(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all(SITE).iter();
    if let Some(site) = sites.next() {
        // Only the browser can set it, so it also holds behind a proxy that names another host.
        return site == "same-origin" && sites.next().is_none();
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next().and_then(|origin| origin.to_str().ok()), origins.next())
    else {
        return false;
    };
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let named = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    named.is_some_and(|named| !named.is_empty() && named.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pages_are_ours() {
        let check = |pairs: &[(&str, &str)], expected| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            assert_eq!(is_ours(&headers), expected, "{pairs:?}");
        };
        let host = ("host", "farm.example.org:8080");
        check(&[host], false);
        check(&[host, ("origin", "http://farm.example.org:8080")], true);
        check(&[host, ("origin", "https://FARM.example.org:8080")], true);
        check(&[host, ("origin", "http://farm.example.org")], false);
        check(&[host, ("origin", "http://evil.example")], false);
        check(&[host, ("origin", "null")], false);
        check(&[("host", ""), ("origin", "http://")], false);
        check(&[host, ("sec-fetch-site", "same-origin"), ("origin", "https://public.example")], true);
        for site in ["cross-site", "same-site", "none", ""] {
            let origin = ("origin", "http://farm.example.org:8080");
            check(&[host, ("sec-fetch-site", site), origin], false);
        }
        check(&[host, ("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")], false);
        check(&[host, ("origin", "http://farm.example.org:8080"), ("origin", "http://evil.example")], false);
    }
}
