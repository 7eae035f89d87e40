//! Converts numbers to text. Equal numbers of different types have the same text.

use mongodb::bson::Decimal128;

/// Whole numbers of up to this many digits are written without an exponent. A decimal has no more digits.
const MAX_DIGITS: i64 = 34;
/// A fraction with this many leading zeros or more is written with an exponent.
const EXPONENT_ZEROS: i64 = 5;

pub(super) fn double(number: f64) -> String {
    match number {
        _ if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        _ if number == 0.0 => "0".to_owned(),
        _ if number.fract() == 0.0 && number.abs() < 1e34 => format!("{number:.0}"),
        _ => canonical(&format!("{number:e}")),
    }
}

pub(super) fn decimal(number: Decimal128) -> String {
    match number.to_string().as_str() {
        "Infinity" => "Infinity".to_owned(),
        "-Infinity" => "-Infinity".to_owned(),
        text if text.contains(|c: char| c.is_ascii_digit()) => canonical(text),
        _ => "NaN".to_owned(),
    }
}

pub(super) fn is_whole(number: Decimal128) -> bool {
    !decimal(number).contains(['.', 'e', 'N', 'I'])
}

/// Brings a decimal text, with or without a point and an exponent, into the common form.
fn canonical(text: &str) -> String {
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let exponent = exponent.parse::<i64>().unwrap_or(0);
    // The position of the decimal point, counted from the first significant digit.
    let point = length(whole) + exponent - length(&all) + length(all.trim_start_matches('0'));
    let digits = all.trim_matches('0');
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    if digits.is_empty() {
        return "0".to_owned();
    }
    if point >= length(digits) && point <= MAX_DIGITS {
        return format!("{sign}{digits}{}", zeros(point - length(digits)));
    }
    if point > 0 && point < length(digits) {
        let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
        return format!("{sign}{whole}.{fraction}");
    }
    if point <= 0 && point > -EXPONENT_ZEROS {
        return format!("{sign}0.{}{digits}", zeros(-point));
    }
    let (first, rest) = digits.split_at(1);
    let rest = if rest.is_empty() { String::new() } else { format!(".{rest}") };
    format!("{sign}{first}{rest}e{}", point - 1)
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_numbers_have_the_same_text() {
        for (number, same, text) in [
            (5.0, "5.00", "5"),
            (-0.0, "-0E+3", "0"),
            (1e3, "1E+3", "1000"),
            (0.5, "0.50", "0.5"),
            (-12.75, "-12.7500", "-12.75"),
            (1e33, "999999999999999945575230987042816", "999999999999999945575230987042816"),
            (9.5367431640625e-7, "9.5367431640625E-7", "9.5367431640625e-7"),
            (0.000_030_517_578_125, "0.000030517578125", "0.000030517578125"),
            (f64::NAN, "NaN", "NaN"),
            (f64::NEG_INFINITY, "-Infinity", "-Infinity"),
        ] {
            assert_eq!(double(number), text);
            assert_eq!(decimal(same.parse().expect("a decimal")), text);
        }
        assert_eq!(double(1e300), "1e300");
        assert_eq!(decimal("1E+40".parse().expect("a decimal")), "1e40");
        assert_eq!(decimal("0.1".parse().expect("a decimal")), double(0.1));
    }

    #[test]
    fn a_decimal_is_whole_without_a_fraction() {
        for (number, whole) in
            [("5.00", true), ("1E+3", true), ("0.5", false), ("1E+40", false), ("NaN", false)]
        {
            assert_eq!(is_whole(number.parse().expect("a decimal")), whole, "{number}");
        }
    }
}
