//! One name per concept, so that a search finds every place.
//!
//! The names are the field's and PyTorch's where those agree; counts are `n_foos`, positions `foo_idx`. Only code is
//! looked at: prose and literals, such as the key of a foreign format, are free.

use super::Finding;
use super::code::{code_only, words};
use super::tree::Tree;

/// `(ours, not these)`. A name is found as a whole and as a part between underscores: `in_ch` also in `conv_in_ch`.
const NAMES: &[(&str, &[&str])] = &[
    (
        "c_in",
        &[
            "in_ch",
            "in_chans",
            "in_channels",
            "ch_in",
            "cin",
            "n_in_channels",
            "channels_in",
            "input_channels",
        ],
    ),
    (
        "c_out",
        &[
            "out_ch",
            "out_chans",
            "out_channels",
            "ch_out",
            "cout",
            "channels_out",
            "output_channels",
        ],
    ),
    ("kernel", &["filters", "filter_size", "conv_filter", "kern"]),
    ("sigma_max", &["max_sv", "max_singular_value", "largest_singular_value", "smax", "sigmamax"]),
    ("sigma_min", &["min_sv", "min_singular_value", "smallest_singular_value", "smin", "sigmamin"]),
    ("lipschitz_bound", &["lip", "lip_const", "lipschitz_const", "lipschitz_constant"]),
    ("n_classes", &["num_classes", "nb_classes", "class_count"]),
    ("n_layers", &["num_layers", "nb_layers", "layer_count"]),
    ("n_samples", &["num_samples", "nb_samples", "sample_count"]),
    ("n_steps", &["num_steps", "nb_steps", "step_count"]),
    ("n_epochs", &["num_epochs", "nb_epochs", "epoch_count"]),
    ("n_iterations", &["num_iters", "num_iterations", "n_iters", "n_iter"]),
    ("max_iterations", &["max_iters", "max_iter", "maxiter"]),
    ("class_idx", &["class_index", "class_ix"]),
    ("layer_idx", &["layer_index", "layer_ix"]),
    ("sample_idx", &["sample_index", "sample_ix"]),
    ("learning_rate", &["lr_rate", "learn_rate", "learningrate"]),
    ("epsilon", &["epsi", "eps_ball"]),
    ("orthogonal", &["orthog", "ortho"]),
    ("projector", &["projection_matrix", "proj_mat"]),
];

/// Code says each thing in one way.
pub(super) fn concepts_have_one_name(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust_files() {
        for (line_idx, line) in code_only(text).lines().enumerate() {
            for word in words(line) {
                let message = |ours| format!("`{word}`: this project says {ours}");
                findings.extend(
                    ours_for(word).map(|ours| Finding::new(path, line_idx + 1, message(ours))),
                );
            }
        }
    }
    findings
}

/// Whether the character belongs to an identifier.
pub(super) fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn ours_for(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase();
    NAMES
        .iter()
        .find(|(_, others)| others.iter().any(|other| has_part(&lower, other)))
        .map(|(ours, _)| *ours)
}

/// Whether `part` stands in `word` between underscores or ends.
fn has_part(word: &str, part: &str) -> bool {
    word.match_indices(part).any(|(at, _)| {
        let (before, after) = (&word[..at], &word[at + part.len()..]);
        (before.is_empty() || before.ends_with('_')) && (after.is_empty() || after.starts_with('_'))
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn other_names_are_found_in_code_alone() {
        let text = "//! in_channels of PyTorch\nfn f(conv_in_ch: usize) { g(\"in_channels\"); }\n";
        check(
            concepts_have_one_name,
            &[("a.rs", text)],
            &["a.rs:2: `conv_in_ch`: this project says c_in"],
        );
    }

    #[test]
    fn parts_are_whole_words() {
        for word in [
            "in_chunks",
            "lipconv",
            "lipschitz",
            "clip",
            "filter",
            "filter_map",
            "c_in",
            "n_classes",
            "orthogonal",
        ] {
            assert_eq!(ours_for(word), None, "{word}");
        }
        for (word, ours) in [
            ("LIP_CONST", "lipschitz_bound"),
            ("num_classes", "n_classes"),
            ("n_filters", "kernel"),
        ] {
            assert_eq!(ours_for(word), Some(ours), "{word}");
        }
    }

    #[test]
    fn our_own_names_are_not_refused() {
        for (ours, _) in NAMES {
            assert_eq!(ours_for(ours), None, "{ours}");
        }
    }
}
