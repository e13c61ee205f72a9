//! The web page: its files, and who may do what with it. It asks the same paths as any client of the control socket.

mod guard;

use hyper::Response;
use hyper::header::{CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_FRAME_OPTIONS};

pub(crate) use guard::{Guard, Seen};

/// All comes from here, nothing is inline, and no other page may show this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Where browsers find it.
    pub path: &'static str,
    /// Its MIME type.
    pub content_type: &'static str,
    /// What is in it.
    pub content: &'static str,
}

/// All files of the page.
pub const FILES: &[File] = &[
    html("/", include_str!("page/index.html")),
    script("/page.js", include_str!("page/page.js")),
    style("/page.css", include_str!("page/page.css")),
    // Version 1.6.32, unchanged. Its licence is beside it, and named in the page.
    script("/uplot.js", include_str!("page/uplot.js")),
    style("/uplot.css", include_str!("page/uplot.css")),
    File {
        path: "/uplot.LICENSE",
        content_type: "text/plain; charset=utf-8",
        content: include_str!("page/uplot.LICENSE"),
    },
    File { path: "/icon.svg", content_type: "image/svg+xml", content: include_str!("page/icon.svg") },
];

const fn html(path: &'static str, content: &'static str) -> File {
    File { path, content_type: "text/html; charset=utf-8", content }
}

const fn script(path: &'static str, content: &'static str) -> File {
    File { path, content_type: "text/javascript; charset=utf-8", content }
}

const fn style(path: &'static str, content: &'static str) -> File {
    File { path, content_type: "text/css; charset=utf-8", content }
}

/// The file of this path.
#[must_use]
pub fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// An answer with what tells browsers to be careful.
pub(crate) fn guarded<B>(mut answer: Response<B>) -> Response<B> {
    let same_origin = HeaderValue::from_static("same-origin");
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), same_origin.clone());
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), same_origin);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_page_is_less_than_150_kilobytes() {
        let size: usize = FILES.iter().map(|file| file.content.len()).sum();
        assert!(size < 150_000, "{size}");
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_has_nothing_inline() {
        let page = file("/").unwrap().content;
        for forbidden in ["http:", "https:", "style=", "<style", "onclick", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for script in page.split("<script").skip(1) {
            assert!(script.trim_start().starts_with("src=\"/") && script.contains("></script>"), "{script}");
        }
        for part in page.split(['"']).filter(|part| part.starts_with('/')) {
            assert!(file(part).is_some(), "{part}");
        }
    }
}
