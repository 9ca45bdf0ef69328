//! The page that lists a directory.

use super::open;
use super::path::encode;
use std::fmt::Write;

/// Names on a page; a directory with more has a line that says so.
pub const NAMES_MAX: usize = 10_000;

/// One name of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub text: String,
    pub is_directory: bool,
}

/// The names of a directory, directories first, and how many more there are. Names that this server does not serve
/// (hidden ones unless `hidden`, and those that are no UTF-8 or hold what no path may) are left out.
pub fn names(directory: open::Handle, hidden: bool) -> Result<(Vec<Name>, usize), open::Error> {
    let mut names = Vec::new();
    let mut more = 0;
    open::names(directory, |text, is_directory| {
        let served = !matches!(text, "." | "..")
            && (hidden || !text.starts_with('.'))
            && super::path::resolve(&format!("/{}", encode(text)), hidden).is_ok();
        match served {
            false => {}
            true if names.len() == NAMES_MAX => more += 1,
            true => names.push(Name { text: text.to_owned(), is_directory }),
        }
    })?;
    names.sort_by(|a, b| (!a.is_directory, &a.text).cmp(&(!b.is_directory, &b.text)));
    Ok((names, more))
}

/// `directory`: relative to what is served, empty for that itself.
pub fn page(directory: &str, names: &[Name], more: usize) -> String {
    let mut page = String::with_capacity(256 + names.len() * 64);
    let title = escape(directory);
    let _ = write!(
        page,
        "<!DOCTYPE html>\n<html>\n<head><meta charset=\"utf-8\"><title>/{title}</title></head>\n<body>\n<h1>/{title}</h1>\n<ul>\n"
    );
    if !directory.is_empty() {
        page.push_str("<li><a href=\"../\">../</a></li>\n");
    }
    for name in names {
        let slash = if name.is_directory { "/" } else { "" };
        // "./" so that no name is taken for a scheme.
        let _ =
            writeln!(page, "<li><a href=\"./{}{slash}\">{}{slash}</a></li>", encode(&name.text), escape(&name.text));
    }
    if more > 0 {
        let _ = writeln!(page, "<li>and {more} more</li>");
    }
    page.push_str("</ul>\n</body>\n</html>\n");
    page
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_more_than_text_on_a_page() {
        let file = |text: &str| Name { text: text.into(), is_directory: false };
        let names = [file("<script>alert(1)</script>"), file("a\"b'c&d"), file("javascript:x"), file("a b%?#")];
        let page = page("x<y>&/\"z", &names, 3);
        assert!(!page.contains("<script") && !page.contains("<y>"), "{page}");
        assert!(page.contains("<title>/x&lt;y&gt;&amp;/&quot;z</title>"), "{page}");
        assert!(page.contains("href=\"./a%22b%27c%26d\">a&quot;b&#39;c&amp;d<"), "{page}");
        assert!(page.contains("href=\"./javascript%3Ax\""), "{page}");
        assert!(page.contains("href=\"./a%20b%25%3F%23\""), "{page}");
        assert!(page.contains("../") && page.contains("and 3 more"), "{page}");
    }
}
