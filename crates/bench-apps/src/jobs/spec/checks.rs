//! What an experiment file may not hold, and what a choice of its jobs does not reach.
//!
//! Guarantee: an experiment that was read has a cell under every budget that a call may name.

use super::{Budget, Experiment, budget_names, shipped_budgets};
use crate::config::require;
use crate::error::Result;
use crate::jobs::job::Choice;

/// Jobs of an experiment.
const MOST_JOBS: usize = 100_000;

impl Experiment {
    /// A budget that no call would use, or lists that make no cells.
    pub(super) fn fault(&self) -> Option<String> {
        let shipped = shipped_budgets();
        if let Some(name) = self.budgets.keys().find(|name| !shipped.contains_key(*name)) {
            let known = budget_names();
            return Some(format!("unknown budget `{name}` in budgets, expected one of {known}"));
        }
        if self.cells.is_empty() && self.wasserstein.is_none() {
            return Some("no cells, expected a [[cells]] or a [wasserstein] table".into());
        }
        let empty = self.list_lengths().into_iter().find(|(.., n)| *n == 0);
        empty.map(|(table, key, _)| format!("{key} of {table} is [], expected one entry at least"))
    }

    /// The lists that cells are made of: their tables, keys and lengths.
    fn list_lengths(&self) -> Vec<(String, &'static str, usize)> {
        let mut lists = Vec::new();
        for (i, block) in self.cells.iter().enumerate() {
            let table = || format!("[[cells]] {}", i + 1);
            lists.push((table(), "datasets", block.datasets.len()));
            lists.push((table(), "networks", block.networks.len()));
            lists.push((table(), "methods", block.methods.len()));
            lists.extend(block.seeds.iter().map(|seeds| (table(), "seeds", seeds.len())));
        }
        if let Some(of) = &self.wasserstein {
            let table = || "[wasserstein]".to_owned();
            lists.push((table(), "datasets", of.datasets.len()));
            lists.push((table(), "methods", of.methods.len()));
            lists.push((table(), "activations", of.activations.len()));
        }
        for (name, budget) in &self.budgets {
            lists.push((format!("[budgets.{name}]"), "seeds", budget.seeds.len()));
            if let (Some(of), Some(wanted)) = (&budget.wasserstein, &self.wasserstein) {
                let table = format!("[budgets.{name}.wasserstein]");
                if wanted.anchors {
                    lists.push((table.clone(), "anchors.seeds", of.anchors.seeds.len()));
                }
                lists.push((table, "seeds", of.seeds.len()));
            }
        }
        lists
    }

    /// The cells that have seeds of their own, where other ones are asked for.
    pub(super) fn unreached(&self, budget: &Budget, choice: Choice<'_>) -> Vec<String> {
        let Some(asked) = choice.seeds else { return Vec::new() };
        let mut kept: Vec<(String, &[u64])> = Vec::new();
        for (i, block) in self.cells.iter().enumerate() {
            let taken = block.methods.iter().any(|method| choice.takes(method));
            if let Some(own) = block.seeds.as_deref().filter(|_| taken) {
                kept.push((format!("the cells of [[cells]] {}", i + 1), own));
            }
        }
        if let (Some(of), Some(budget)) = (&self.wasserstein, &budget.wasserstein)
            && of.anchors
        {
            kept.push(("the anchors".into(), budget.anchors.seeds.as_slice()));
        }
        kept.retain(|(_, own)| *own != asked);
        let note = |(what, own): (String, &[u64])| {
            format!(
                "{}: {what} keep their own seeds {own:?}; {asked:?} are not for them",
                self.name
            )
        };
        kept.into_iter().map(note).collect()
    }

    /// A few lists of some length have a product that nobody can run.
    pub(super) fn check_number(&self, budget: &Budget, choice: Choice<'_>) -> Result<()> {
        let product = |sides: [usize; 4]| sides.into_iter().fold(1, usize::saturating_mul);
        let n_seeds = |own: &[u64]| choice.seeds.unwrap_or(own).len();
        let cells = self.cells.iter().map(|block| {
            let seeds = block.seeds.as_ref().map_or_else(|| n_seeds(&budget.seeds), Vec::len);
            product([block.datasets.len(), block.networks.len(), block.methods.len(), seeds])
        });
        let distances = self.wasserstein.iter().zip(&budget.wasserstein).map(|(of, budget)| {
            let seeds = n_seeds(&budget.seeds);
            product([of.datasets.len(), of.methods.len(), of.activations.len(), seeds])
        });
        let n = cells.chain(distances).fold(0, usize::saturating_add);
        require(n <= MOST_JOBS, "number of cells", n, &format!("at most {MOST_JOBS}"))
    }
}
