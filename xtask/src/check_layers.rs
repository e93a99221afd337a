//! `cargo xtask check-layers`: crates, modules and files depend on what lies below them.
//!
//! From `cargo metadata`, against the table of layers: a member without a row in the table, and a row without a member; an edge
//! between members that the table does not allow, be it a normal, build or development dependency; an outside
//! dependency of a forbidden group; and, where a row says so, a forbidden crate that is pulled in through others.
//! From the sources: circles of files within a crate ([`files`] says what counts as one), and uses of a module that
//! stands later in the table of modules.

mod files;
mod graph;
mod modules;
mod source;
mod table;

use anyhow::bail;

use self::graph::{Dependency, Graph, Kind};
use self::table::{LAYERS, Layer, MODULES};
use crate::tree::Tree;
use crate::workspace;

pub(crate) fn run() -> anyhow::Result<()> {
    let graph = Graph::from_metadata(&workspace::metadata()?)?;
    let mut violations = violations(&graph, LAYERS);
    violations.extend(modules::violations(&Tree::read(&workspace::root())?, MODULES));
    for violation in &violations {
        eprintln!("{violation}");
    }
    if !violations.is_empty() {
        bail!(
            "{} places are against xtask/src/check_layers/table.rs or in a circle",
            violations.len()
        );
    }
    println!("{} crates keep to their layers", graph.members().len());
    Ok(())
}

/// One line per violation.
fn violations(graph: &Graph, layers: &[Layer]) -> Vec<String> {
    let mut found = unknown_rows(graph, layers);
    for member in graph.members() {
        let Some(layer) = layers.iter().find(|layer| layer.name == member.name) else {
            found.push(format!("{}: has no row in the table of layers", member.name));
            continue;
        };
        let is_member = |name: &str| graph.members().iter().any(|member| member.name == name);
        for dependency in &member.dependencies {
            let complaint = if is_member(&dependency.name) {
                against_inner_edges(layer, dependency)
            } else {
                against_outside(layer, dependency)
            };
            found.extend(complaint.map(|why| format!("{} -> {}: {why}", member.name, dependency)));
        }
        found.extend(pulled_in(graph, layer));
    }
    found
}

fn unknown_rows(graph: &Graph, layers: &[Layer]) -> Vec<String> {
    let is_member = |name| graph.members().iter().any(|member| member.name == name);
    let orphans = layers.iter().filter(|layer| !is_member(layer.name));
    orphans
        .map(|layer| format!("{}: a row in the table of layers, but no member", layer.name))
        .collect()
}

fn against_inner_edges(layer: &Layer, dependency: &Dependency) -> Option<String> {
    let allowed_in_tests =
        dependency.kind == Kind::Dev && layer.tests_may_use.contains(&dependency.name.as_str());
    let allowed = layer.may_use.contains(&dependency.name.as_str()) || allowed_in_tests;
    (!allowed)
        .then(|| format!("not an allowed edge ({} may use {})", layer.name, listed(layer.may_use)))
}

fn against_outside(layer: &Layer, dependency: &Dependency) -> Option<String> {
    if let Some(group) =
        layer.must_not_use.iter().find(|group| group.contains(&dependency.name, dependency.kind))
    {
        return Some(format!("{} has no place in {}", group.what, layer.name));
    }
    let allowed = layer.only_outside?;
    (!allowed.contains(&dependency.name.as_str()))
        .then(|| format!("{} depends only on {}", layer.name, listed(allowed)))
}

/// Forbidden crates that come through others, for the groups that forbid that too.
fn pulled_in(graph: &Graph, layer: &Layer) -> Vec<String> {
    let mut found = Vec::new();
    for (name, path) in graph.reachable(layer.name) {
        let group =
            layer.must_not_use.iter().find(|group| group.also_through_others && group.lists(&name));
        // a path of one is the manifest's own dependency, reported as such
        if let (Some(group), true) = (group, path.len() > 1) {
            found.push(format!("{} pulls in {}: {}", layer.name, path.join(" -> "), group.what));
        }
    }
    found
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "no other crate of the workspace".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests;
