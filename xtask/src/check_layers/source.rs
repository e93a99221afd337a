//! The names that a Rust file takes from other files of its crate.
//!
//! Not a parser: it knows `use` trees, paths, inline modules and `#[cfg(test)]`, in text without comments and literals.

use std::collections::{BTreeMap, BTreeSet};

use crate::code::code_only;

/// A file, read.
#[derive(Debug)]
pub(super) struct Source {
    /// Below `src/`.
    pub(super) path: String,
    pub(super) references: Vec<Reference>,
    /// What names bound by `use` stand for; `None` for a name of another crate.
    bindings: BTreeMap<String, Option<Vec<String>>>,
    /// The words outside of `use`.
    words: BTreeSet<String>,
    definitions: BTreeSet<String>,
}

/// A name of this crate that the file mentions.
#[derive(Debug)]
pub(super) struct Reference {
    /// From the root of the crate.
    pub(super) path: Vec<String>,
    /// What the file calls it.
    pub(super) name: String,
    /// Whether it is only re-exported.
    pub(super) is_handed_on: bool,
    /// Whether it stands for every item of a module.
    pub(super) is_glob: bool,
}

impl Source {
    pub(super) fn read(
        path: &str,
        module: &[String],
        text: &str,
        children: BTreeSet<String>,
    ) -> Self {
        let tokens = without_tests(&tokens(&code_only(text)));
        let mut reader = Reader {
            source: Self {
                path: path.to_owned(),
                references: vec![],
                bindings: BTreeMap::new(),
                words: BTreeSet::new(),
                definitions: BTreeSet::new(),
            },
            module: module.to_vec(),
            inline: vec![],
            children,
            tokens: &tokens,
        };
        // imports first: later paths may begin with what they bind
        reader.imports();
        reader.paths();
        reader.source
    }

    /// Whether the code outside of `use` has this word.
    pub(super) fn says(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    pub(super) fn defines(&self, item: &str) -> bool {
        self.definitions.contains(item)
    }

    /// What the file hands on under this name: a path of this crate, or something of another one.
    pub(super) fn handed_on(&self, name: &str) -> Option<Option<&[String]>> {
        if self.defines(name) {
            return None;
        }
        self.bindings.get(name).map(Option::as_deref)
    }

    /// The modules of which everything is imported.
    pub(super) fn globs(&self) -> impl Iterator<Item = &[String]> {
        self.references.iter().filter(|r| r.is_glob).map(|r| r.path.as_slice())
    }
}

struct Reader<'t> {
    source: Source,
    module: Vec<String>,
    /// Inline modules around the current token, with the depth of their braces.
    inline: Vec<(String, usize)>,
    children: BTreeSet<String>,
    tokens: &'t [String],
}

/// Words before the name of an item.
const KEYWORDS: [&str; 9] =
    ["fn", "struct", "enum", "trait", "const", "static", "type", "union", "macro_rules"];

impl Reader<'_> {
    fn token(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", String::as_str)
    }

    /// Whether an import begins here; `use<'a>` says what a type captures.
    fn is_import(&self, at: usize) -> bool {
        self.token(at) == "use" && self.token(at + 1) != "<"
    }

    fn imports(&mut self) {
        for at in 0..self.tokens.len() {
            if self.is_import(at) {
                let is_public = at > 0 && ["pub", ")"].contains(&self.token(at - 1));
                let mut next = at + 1;
                self.tree(&mut next, vec![], is_public);
            }
        }
    }

    /// Reads one branch of a `use` tree, up to the token that ends it.
    fn tree(&mut self, at: &mut usize, mut path: Vec<String>, is_public: bool) {
        loop {
            match self.token(*at) {
                "::" => *at += 1,
                "{" => {
                    *at += 1;
                    while !["}", ""].contains(&self.token(*at)) {
                        self.tree(at, path.clone(), is_public);
                        if self.token(*at) == "," {
                            *at += 1;
                        }
                    }
                    *at += 1;
                    return;
                }
                "as" => {
                    let name = self.token(*at + 1).to_owned();
                    *at += 2;
                    return self.bind(path, name, is_public);
                }
                "," | "}" | ";" | "" => {
                    let name = path.last().cloned().unwrap_or_default();
                    return self.bind(path, name, is_public);
                }
                "self" if !path.is_empty() => *at += 1,
                word => {
                    path.push(word.to_owned());
                    *at += 1;
                }
            }
        }
    }

    fn bind(&mut self, mut path: Vec<String>, name: String, is_public: bool) {
        let is_glob = path.last().is_some_and(|last| last == "*");
        if is_glob {
            path.pop();
        }
        let resolved = self.absolute(&path);
        if let Some(path) = resolved.clone() {
            let reference = Reference {
                path,
                name: name.clone(),
                is_handed_on: is_public && !is_glob,
                is_glob,
            };
            self.source.references.push(reference);
        }
        if !is_glob {
            self.source.bindings.insert(name, resolved);
        }
    }

    /// The path from the root of the crate; `None` where it leads out of the crate.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let (first, rest) = path.split_first()?;
        let mut here = self.module.clone();
        here.extend(self.inline.iter().map(|(name, _)| name.clone()));
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([here.as_slice(), rest].concat()),
            "super" => {
                here.pop();
                let n_more = rest.iter().take_while(|word| *word == "super").count();
                here.truncate(here.len().saturating_sub(n_more));
                Some([here.as_slice(), &rest[n_more..]].concat())
            }
            child if self.children.contains(child) => Some([self.module.as_slice(), path].concat()),
            _ => None,
        }
    }

    fn paths(&mut self) {
        let (mut at, mut depth) = (0, 0);
        while at < self.tokens.len() {
            match self.token(at) {
                "use" if self.is_import(at) => {
                    while ![";", ""].contains(&self.token(at)) {
                        at += 1;
                    }
                }
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    self.inline.retain(|(_, inner)| *inner <= depth);
                }
                "mod" if self.token(at + 2) == "{" => {
                    self.inline.push((self.token(at + 1).to_owned(), depth + 1));
                    at += 1;
                }
                word if is_word(word) => at = self.path(at),
                _ => {}
            }
            at += 1;
        }
    }

    /// Notes the word or path that begins here; returns where it ends.
    fn path(&mut self, start: usize) -> usize {
        let first = self.token(start).to_owned();
        if KEYWORDS.contains(&first.as_str()) {
            let skipped = usize::from(self.token(start + 1) == "!");
            self.source.definitions.insert(self.token(start + 1 + skipped).to_owned());
        }
        let mut end = start;
        while self.token(end + 1) == "::" && is_word(self.token(end + 2)) {
            end += 2;
        }
        self.source.words.insert(first.clone());
        let is_visibility =
            start > 1 && self.token(start - 1) == "in" && self.token(start - 2) == "(";
        let is_continued = start > 0 && self.token(start - 1) == "::";
        if end == start || is_visibility || is_continued {
            return end;
        }
        let words: Vec<String> =
            (start..=end).step_by(2).map(|at| self.token(at).to_owned()).collect();
        let imported = self.source.bindings.get(&first).cloned().flatten();
        let path = match imported {
            Some(module) => Some([module.as_slice(), &words[1..]].concat()),
            None => self.absolute(&words),
        };
        if let Some(path) = path {
            let reference = Reference { path, name: first, is_handed_on: false, is_glob: false };
            self.source.references.push(reference);
        }
        end
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let length = match first {
            _ if is_part(first) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

/// Leaves out the items under `#[cfg(test)]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at..].iter().take(TEST.len()).eq(TEST.iter()) {
            at = end_of_item(tokens, at + TEST.len());
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Behind the first `;` or closed brace outside of brackets.
fn end_of_item(tokens: &[String], start: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.as_str() {
            "{" | "(" | "[" => depth += 1,
            "}" | ")" | "]" => depth -= 1,
            _ => {}
        }
        if depth == 0 && (token == ";" || token == "}") {
            return at + 1;
        }
    }
    tokens.len()
}
