//! Which file of a crate uses which, and the circles among them.
//!
//! Definition. A file uses another if its code names an item that the other one defines, in a `use` or in a path that
//! begins with `crate`, `self`, `super`, a child module or an imported module. A name that a `use` hands on counts for the
//! file that defines it, not for the file that hands it on. So `mod.rs` or `lib.rs` may list and re-export its children,
//! and they may use each other through it.
//!
//! `mod child;` and `pub use child::Item;` are no uses, unless the file says `Item` in its own code as well.
//!
//! A circle is a group of files of which each uses each other one, directly or through others. One kind is none: a module
//! and its children are one thing in several files, so a child may use what its parent defines (it sees the parent's
//! private items too) and the parent may use the child. That holds inside the folder alone: where a file outside of it
//! is part of the circle, or where children use one another in a circle, it is a fault. The root of a crate is no such
//! parent.
//!
//! Code under `#[cfg(test)]` is left out, and so are methods: only names in paths are seen.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Reference, Source};

/// A use of one file by another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Use {
    /// Paths below `src/`.
    pub(crate) from: String,
    pub(crate) to: String,
    /// The first name that was found.
    pub(crate) item: String,
}

/// The files of one crate and their uses.
#[derive(Debug)]
pub(crate) struct FileGraph {
    pub(crate) uses: Vec<Use>,
}

/// How often a name is followed from file to file before it counts where it is.
const LONGEST_CHAIN: usize = 16;

impl FileGraph {
    /// `files` are paths below `src/` with their text.
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let crate_files = Files::new(files);
        let mut uses = BTreeMap::new();
        for source in crate_files.sources.values() {
            for reference in &source.references {
                let Some((to, item)) = crate_files.target(source, reference) else { continue };
                if to != source.path {
                    uses.entry((source.path.clone(), to)).or_insert(item);
                }
            }
        }
        let uses = uses.into_iter().map(|((from, to), item)| Use { from, to, item }).collect();
        Self { uses }
    }

    /// The groups of files that use one another in circles, each as the uses within it.
    pub(crate) fn circles(&self) -> Vec<Vec<&Use>> {
        let mut circles = Vec::new();
        for group in groups(&self.uses.iter().collect::<Vec<_>>()) {
            if has_head(&group) {
                let not_upwards = group.into_iter().filter(|u| !is_inside(&u.from, &u.to));
                circles.extend(groups(&not_upwards.collect::<Vec<_>>()));
            } else {
                circles.push(group);
            }
        }
        circles
    }
}

/// Whether one file of the group is the parent of all others.
fn has_head(group: &[&Use]) -> bool {
    group.iter().any(|head| {
        group.iter().all(|other| other.from == head.from || is_inside(&other.from, &head.from))
    })
}

/// Whether the first file belongs to a module inside that of the second, the root left out.
fn is_inside(inner: &str, outer: &str) -> bool {
    let (inner, outer) = (module(inner), module(outer));
    !outer.is_empty() && inner.len() > outer.len() && inner.starts_with(&outer)
}

/// The strongly connected parts of the graph that have more than one file, as the uses within them.
fn groups<'u>(uses: &[&'u Use]) -> Vec<Vec<&'u Use>> {
    let reached = reached(uses);
    let together = |a: &str, b: &str| reached[a].contains(b) && reached[b].contains(a);
    let mut groups: BTreeMap<&str, Vec<&Use>> = BTreeMap::new();
    for used in uses {
        let is_first = |file: &&&str| together(file, &used.from) && together(file, &used.to);
        if let Some(first) = reached.keys().find(is_first) {
            groups.entry(first).or_default().push(used);
        }
    }
    groups.into_values().collect()
}

/// For each file, those that it uses directly or through others.
fn reached<'u>(uses: &[&'u Use]) -> BTreeMap<&'u str, BTreeSet<&'u str>> {
    let mut used: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Use { from, to, .. } in uses {
        used.entry(from).or_default().push(to);
        used.entry(to).or_default();
    }
    let from = |start: &str| {
        let (mut reached, mut open) = (BTreeSet::new(), used[start].clone());
        while let Some(file) = open.pop() {
            if reached.insert(file) {
                open.extend(&used[file]);
            }
        }
        reached
    };
    used.keys().map(|file| (*file, from(file))).collect()
}

/// The sources by module path.
struct Files {
    sources: BTreeMap<Vec<String>, Source>,
}

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        let has_library = files.iter().any(|(path, _)| *path == "lib.rs");
        let modules = files.iter().filter_map(|(path, text)| {
            // the binary of a library is a crate of its own
            let is_binary = path.starts_with("bin/") || (*path == "main.rs" && has_library);
            (!is_binary).then(|| (module(path), *path, *text))
        });
        let modules: Vec<_> = modules.collect();
        let sources = modules.iter().map(|(module, path, text)| {
            let is_child = |other: &&[String]| other[..other.len() - 1] == **module;
            let others = modules.iter().map(|(other, ..)| other.as_slice());
            let children = others.filter(|other| !other.is_empty()).filter(is_child);
            let children = children.filter_map(|child| child.last().cloned()).collect();
            (module.clone(), Source::read(path, module, text, children))
        });
        Self { sources: sources.collect() }
    }

    /// The file that defines what the reference names, and the name.
    fn target(&self, source: &Source, reference: &Reference) -> Option<(String, String)> {
        if reference.is_handed_on && !source.says(&reference.name) {
            return None;
        }
        let mut path = reference.path.clone();
        for _ in 0..LONGEST_CHAIN {
            let depth = (0..=path.len()).rev().find(|&n| self.sources.contains_key(&path[..n]))?;
            let file = &self.sources[&path[..depth]];
            // a module that is imported counts where its items are named
            let Some(item) = path.get(depth) else {
                return reference.is_glob.then(|| (file.path.clone(), "*".to_owned()));
            };
            match file.handed_on(item) {
                Some(Some(next)) => path = [next, &path[depth + 1..]].concat(),
                // a name of another crate
                Some(None) => return None,
                None => {
                    let through_glob = file.globs().find(|module| self.defines(module, item));
                    let defining = through_glob.map_or(file, |module| &self.sources[module]);
                    return Some((defining.path.clone(), item.clone()));
                }
            }
        }
        None
    }

    fn defines(&self, module: &[String], item: &str) -> bool {
        self.sources.get(module).is_some_and(|source| source.defines(item))
    }
}

/// The module of a file, the root's being empty.
fn module(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let parts = path.split('/').filter(|part| !["lib", "main", "mod"].contains(part));
    parts.map(str::to_owned).collect()
}
