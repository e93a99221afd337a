//! Rust text without its comments and literals, and the words in it.
//!
//! Not a parser: it knows comments (nested), string literals (with escapes, raw, byte), and tells character literals
//! from lifetimes. What is left out becomes nothing; line breaks stay, so that line numbers hold.

/// The code alone.
pub(crate) fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_length(rest, code.chars().next_back());
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (dropped, after) = rest.split_at(skipped);
        code.extend(dropped.chars().filter(|&c| c == '\n'));
        // a space keeps the words on either side apart
        code.push(' ');
        rest = after;
    }
    code
}

/// The identifiers, keywords and numbers in a line of code.
pub(crate) fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// How many bytes from here on are a comment or a literal; 0 if this is code.
fn skipped_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment(rest);
    }
    if rest.starts_with('"') {
        return quoted(rest, '"');
    }
    if rest.starts_with('\'') {
        return character(rest);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if in_word { 0 } else { raw_string(rest) }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// The length of a literal from its quote to the next one that is not escaped.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// `'x'` or `'\n'`, but not the lifetime `'x`.
fn character(rest: &str) -> usize {
    let mut after = rest.chars().skip(1);
    match (after.next(), after.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(rest, '\''),
        _ => 0,
    }
}

/// `r"…"`, `r#"…"#` and `br"…"`, but not the raw identifier `r#type`.
fn raw_string(rest: &str) -> usize {
    let Some(prefix) = ["r", "br", "cr"].into_iter().find(|prefix| rest.starts_with(prefix)) else {
        return 0;
    };
    let n_hashes = rest[prefix.len()..].chars().take_while(|&c| c == '#').count();
    let opening = prefix.len() + n_hashes;
    if !rest[opening..].starts_with('"') {
        return 0;
    }
    let closing = format!("\"{}", "#".repeat(n_hashes));
    let body = &rest[opening + 1..];
    body.find(&closing).map_or(rest.len(), |at| opening + 1 + at + closing.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected_words: &[&str]) {
        let code = code_only(text);
        assert_eq!(words(&code).collect::<Vec<_>>(), expected_words, "{code:?}");
        assert_eq!(
            code.matches('\n').count(),
            text.matches('\n').count(),
            "line breaks of {text:?}"
        );
    }

    #[test]
    fn comments_are_left_out() {
        check("let a = 1; // and b\nlet c;", &["let", "a", "1", "let", "c"]);
        check("a /* b /* c */ d */ e", &["a", "e"]);
        check("//! doc\n/// more\nfn f() {}", &["fn", "f"]);
        check("a / b", &["a", "b"]);
    }

    #[test]
    fn literals_are_left_out() {
        check(r#"a("b \" c // d", e)"#, &["a", "e"]);
        check("a(r\"b\\\", c, r#\"d \" e\"#, f)", &["a", "c", "f"]);
        check("a('\"', b, '\\'', c, '\\\\', d)", &["a", "b", "c", "d"]);
        check("br\"a\" b\"c\" d", &["b", "d"]);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        check("fn f<'a>(r#type: &'a str) {}", &["fn", "f", "a", "r", "type", "a", "str"]);
        check("for_r\"x\"", &["for_r"]);
    }

    #[test]
    fn unfinished_literals_reach_to_the_end() {
        for text in ["\"abc", "/* abc", "// abc", "r#\"abc"] {
            check(text, &[]);
        }
        check("'", &[]);
        check("r#", &["r"]);
    }
}
