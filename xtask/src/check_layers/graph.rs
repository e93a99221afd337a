//! The dependency graph, from the JSON of `cargo metadata`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use anyhow::{Context as _, bail};
use serde_json::Value;

/// What a dependency is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The library or the binary.
    Normal,
    /// The build script.
    Build,
    /// Tests, examples and benches.
    Dev,
}

/// A dependency that a manifest names.
#[derive(Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Normal => "",
            Kind::Build => " (build)",
            Kind::Dev => " (dev)",
        };
        write!(f, "{}{kind}", self.name)
    }
}

/// A member of the workspace with the dependencies of its manifest, optional ones included.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
}

/// The members, and who uses whom among all packages, development dependencies left out.
#[derive(Debug)]
pub(crate) struct Graph {
    members: Vec<Member>,
    names: BTreeMap<String, String>,
    used_by_id: BTreeMap<String, Vec<String>>,
    member_ids: BTreeMap<String, String>,
}

impl Graph {
    pub(crate) fn from_metadata(metadata: &Value) -> anyhow::Result<Self> {
        let member_list =
            strings(&metadata["workspace_members"]).context("cargo metadata: workspace_members")?;
        let mut graph = Self {
            members: vec![],
            names: BTreeMap::new(),
            used_by_id: resolved(metadata)?,
            member_ids: BTreeMap::new(),
        };
        for package in list(&metadata["packages"]).context("cargo metadata: packages")? {
            let (id, name) = (text(&package["id"])?, text(&package["name"])?);
            if member_list.contains(&id) {
                graph
                    .members
                    .push(Member { name: name.clone(), dependencies: dependencies(package)? });
                graph.member_ids.insert(name.clone(), id.clone());
            }
            graph.names.insert(id, name);
        }
        Ok(graph)
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// Every package that the member pulls in, each with one shortest path to it from the member's first dependency on.
    pub(crate) fn reachable(&self, member: &str) -> BTreeMap<String, Vec<String>> {
        let mut paths = BTreeMap::new();
        let Some(start) = self.member_ids.get(member) else { return paths };
        let mut queue = VecDeque::from([(start, Vec::new())]);
        while let Some((id, path)) = queue.pop_front() {
            for used in self.used_by_id.get(id).into_iter().flatten() {
                let Some(name) = self.names.get(used) else { continue };
                if paths.contains_key(name) {
                    continue;
                }
                let mut longer: Vec<String> = path.clone();
                longer.push(name.clone());
                paths.insert(name.clone(), longer.clone());
                queue.push_back((used, longer));
            }
        }
        paths
    }
}

fn dependencies(package: &Value) -> anyhow::Result<Vec<Dependency>> {
    let read = |dependency: &Value| {
        let kind = match dependency["kind"].as_str() {
            None => Kind::Normal,
            Some("build") => Kind::Build,
            Some("dev") => Kind::Dev,
            Some(other) => bail!("cargo metadata: unknown kind of dependency {other}"),
        };
        Ok(Dependency { name: text(&dependency["name"])?, kind })
    };
    list(&package["dependencies"])
        .context("cargo metadata: dependencies")?
        .iter()
        .map(read)
        .collect()
}

/// The packages that each package uses, by id, for its library or build script.
fn resolved(metadata: &Value) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let mut used_by_id = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]).context("cargo metadata: resolve")? {
        let shipped = |dep: &&Value| {
            let kinds = dep["dep_kinds"].as_array();
            kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind["kind"] != "dev"))
        };
        let deps = list(&node["deps"]).context("cargo metadata: deps")?.iter().filter(shipped);
        let used = deps.map(|dep| text(&dep["pkg"])).collect::<anyhow::Result<Vec<_>>>()?;
        used_by_id.insert(text(&node["id"])?, used);
    }
    Ok(used_by_id)
}

fn list(value: &Value) -> anyhow::Result<&Vec<Value>> {
    value.as_array().context("expected a list")
}

fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(str::to_owned).context("cargo metadata: expected a string")
}

fn strings(value: &Value) -> anyhow::Result<Vec<String>> {
    list(value)?.iter().map(text).collect()
}
