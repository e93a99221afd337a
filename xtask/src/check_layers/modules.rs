//! The modules of a crate against their order, and circles of files.

use super::files::{FileGraph, Use};
use super::table::{KNOWN_CIRCLES, Modules};
use crate::tree::Tree;

/// One line per circle of files and per use against the order of modules, for all members.
pub(super) fn violations(tree: &Tree, tables: &[Modules]) -> Vec<String> {
    let mut found = Vec::new();
    for member in tree.members() {
        let graph = FileGraph::new(&tree.sources_of(member.folder));
        let circles = graph.circles().into_iter().filter(|circle| !is_known(member.name, circle));
        found.extend(circles.map(|circle| circle_line(member.name, &circle)));
        if let Some(table) = tables.iter().find(|table| table.krate == member.name) {
            found.extend(against_order(&graph, table, &tree.sources_of(member.folder)));
        }
    }
    found
}

fn is_known(krate: &str, circle: &[&Use]) -> bool {
    KNOWN_CIRCLES.iter().any(|(known, files, _)| {
        let is_among = |used: &&Use| files.contains(&&*used.from) && files.contains(&&*used.to);
        *known == krate && circle.iter().all(is_among)
    })
}

fn circle_line(krate: &str, circle: &[&Use]) -> String {
    let uses = circle.iter().map(|u| format!("{} -> {} ({})", u.from, u.to, u.item));
    format!("{krate}: circle of files: {}", uses.collect::<Vec<_>>().join(", "))
}

/// Uses of a module that stands later in the table, and modules without a place in it.
fn against_order(graph: &FileGraph, table: &Modules, files: &[(&str, &str)]) -> Vec<String> {
    let rank = |path: &str| {
        let module = top_module(path)?;
        table.order.iter().position(|rank| rank.contains(&module))
    };
    let mut unknown: Vec<&str> = files.iter().filter_map(|(path, _)| top_module(path)).collect();
    unknown.dedup();
    unknown.retain(|module| !table.order.iter().any(|rank| rank.contains(module)));
    let unknown =
        unknown.iter().map(|module| format!("{}: module {module} has no rank", table.krate));
    let upwards = graph.uses.iter().filter_map(|used| {
        let (from, to) = (rank(&used.from)?, rank(&used.to)?);
        (to > from).then(|| {
            let Use { from, to, item } = used;
            format!("{}: {from} -> {to} ({item}): a module may not use a later one", table.krate)
        })
    });
    unknown.chain(upwards).collect()
}

/// The module of the root to which a file belongs; `None` for the root itself.
fn top_module(path: &str) -> Option<&str> {
    let first = path.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (!["lib", "main", "bin"].contains(&name)).then_some(name)
}
