//! The text of each error that no other test provokes.

use bench_apps::Error;

#[test]
fn messages_are_one_line_and_name_thing_value_and_expectation() {
    let io = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let cases = [
        (Error::Write { path: "a/b".into(), source: io() }, "cannot write a/b: permission denied"),
        (
            Error::Draw { what: "the training curve", reason: "no room".into() },
            "cannot draw the training curve: no room",
        ),
        (Error::Tensor(candle_core::Error::Msg("boom".into())), "tensor: boom"),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}
