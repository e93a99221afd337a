//! Radii as text, and maps from radii to numbers.

use certify::{ByEps, Eps};

#[test]
fn decimals_and_fractions_keep_their_text() {
    for (text, value) in [("1.58", 1.58), ("36/255", 36.0 / 255.0), (" 2 ", 2.0), ("1e-3", 1e-3)] {
        let eps: Eps = text.parse().unwrap();
        assert_eq!((eps.value(), eps.text()), (value, text.trim()));
    }
}

#[test]
fn what_is_no_radius_is_refused() {
    for text in ["", "0", "-1", "nan", "inf", "1/0", "0/5", "a", "1/2/3"] {
        let error = text.parse::<Eps>().unwrap_err().to_string();
        let expected = "a positive number such as 1.58 or a fraction such as 36/255";
        assert_eq!(error, format!("eps is {text:?}, expected {expected}"));
    }
}

#[test]
fn maps_keep_the_order_of_radii_and_round_trip() {
    let texts = ["0.5", "1.58", "10", "36/255"];
    let map: ByEps =
        texts.iter().enumerate().map(|(i, t)| (t.parse().unwrap(), i as f64 + 0.25)).collect();
    let json = serde_json::to_string(&map).unwrap();
    assert_eq!(json, r#"{"0.5":0.25,"1.58":1.25,"10":2.25,"36/255":3.25}"#);
    let back: ByEps = serde_json::from_str(&json).unwrap();
    assert_eq!(back, map);
    assert_eq!((back.get("1.58"), back.get("1.580")), (Some(1.25), None));
    assert!(
        serde_json::from_str::<ByEps>(r#"{"-1": 3}"#)
            .unwrap_err()
            .to_string()
            .starts_with("eps is")
    );
}
