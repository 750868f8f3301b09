//! Files for the browser, embedded, under addresses that change with their content.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hauberk_store::Sha256;

/// An embedded file.
struct Asset {
    content: &'static [u8],
    kind: &'static str,
    name: String,
}

impl Asset {
    fn new(stem: &str, ending: &str, kind: &'static str, content: &'static [u8]) -> Self {
        let hash = Sha256::digest(content).to_base16();
        Self { content, kind, name: format!("{stem}.{}.{ending}", &hash[..12]) }
    }
}

static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("style", "css", "text/css; charset=utf-8", include_bytes!("../assets/style.css"))
});
static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("hauberk", "js", "text/javascript; charset=utf-8", include_bytes!("../assets/hauberk.js"))
});
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_bytes!("../assets/icon.svg")));

/// Gives the name of the style sheet below `/static/`.
pub(crate) fn style() -> &'static str {
    &STYLE.name
}

/// Gives the name of the script below `/static/`.
pub(crate) fn script() -> &'static str {
    &SCRIPT.name
}

/// Gives the name of the icon below `/static/`.
pub(crate) fn icon() -> &'static str {
    &ICON.name
}

/// Serves `/static/NAME`.
pub(crate) async fn serve(Path(name): Path<String>) -> Response {
    match [&*STYLE, &*SCRIPT, &*ICON].into_iter().find(|asset| asset.name == name) {
        Some(asset) => (
            [
                (header::CONTENT_TYPE, asset.kind),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ],
            asset.content,
        )
            .into_response(),
        None => (StatusCode::NOT_FOUND, "no such file\n").into_response(),
    }
}
