//! Sizes and rates as people write and read them.

/// Bytes with an optional letter, 1024-based: `131072`, `128K`, `1.5M`.
///
/// # Errors
///
/// A sentence that says what is allowed.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    parse(text, 1024.0, "a size such as 1400, 128K, 1.5M or 2G (powers of 1024)")
}

/// Bits a second with an optional letter, 1000-based: `50M`.
///
/// # Errors
///
/// As for [`parse_bytes`].
pub fn parse_rate(text: &str) -> Result<u64, String> {
    parse(text, 1000.0, "a rate in bits a second such as 50M, 2.5G or 800K (powers of 1000)")
}

fn parse(text: &str, base: f64, wanted: &str) -> Result<u64, String> {
    let power = match text.as_bytes().last() {
        Some(b'k' | b'K') => 1,
        Some(b'm' | b'M') => 2,
        Some(b'g' | b'G') => 3,
        Some(b't' | b'T') => 4,
        _ => 0,
    };
    let digits = if power == 0 { text } else { &text[..text.len() - 1] };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let number = digits.parse::<f64>().ok().filter(|_| plain).map(|number| number * base.powi(power));
    match number {
        Some(number) if number < 9e18 => Ok(number as u64),
        _ => Err(format!("{text:?} is not {wanted}")),
    }
}

/// Three significant digits in at least four columns.
fn digits(number: f64) -> String {
    match number {
        n if n < 9.995 => format!("{n:4.2}"),
        n if n < 99.95 => format!("{n:4.1}"),
        n => format!("{n:4.0}"),
    }
}

/// An amount: ` 128 KBytes`.
pub fn amount(bytes: f64) -> String {
    const NAMES: [&str; 5] = ["Bytes", "KBytes", "MBytes", "GBytes", "TBytes"];
    let (number, name) = scale(bytes, 1024.0, &NAMES);
    format!("{} {name}", digits(number))
}

/// The letter of `-f`: bits (`k m g t`) or bytes (`K M G T`) in a fixed unit, or adaptive (`a`, and `A` for bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format(char);

impl Default for Format {
    fn default() -> Self {
        Format('a')
    }
}

impl Format {
    /// # Errors
    ///
    /// A letter that iperf3 does not have.
    pub fn parse(text: &str) -> Result<Format, String> {
        match text.chars().next() {
            Some(letter @ ('k' | 'm' | 'g' | 't' | 'K' | 'M' | 'G' | 'T' | 'a' | 'A')) if text.len() == 1 => {
                Ok(Format(letter))
            }
            _ => Err(format!("{text:?} is no unit; give one of k, m, g, t (bits) or K, M, G, T (bytes)")),
        }
    }

    /// A rate: `10.5 Mbits/sec`.
    pub fn rate(self, bits_per_second: f64) -> String {
        const BITS: [&str; 5] = ["bits/sec", "Kbits/sec", "Mbits/sec", "Gbits/sec", "Tbits/sec"];
        const BYTES: [&str; 5] = ["Bytes/sec", "KBytes/sec", "MBytes/sec", "GBytes/sec", "TBytes/sec"];
        let (number, name) = match self.0 {
            'a' => scale(bits_per_second, 1000.0, &BITS),
            'A' => scale(bits_per_second / 8.0, 1024.0, &BYTES),
            letter => {
                let power = 1 + "kmgt".find(letter.to_ascii_lowercase()).unwrap_or(0);
                match letter.is_ascii_lowercase() {
                    true => (bits_per_second / 1000_f64.powi(power as i32), BITS[power]),
                    false => (bits_per_second / 8.0 / 1024_f64.powi(power as i32), BYTES[power]),
                }
            }
        };
        format!("{} {name}", digits(number))
    }
}

fn scale(mut number: f64, base: f64, names: &[&'static str; 5]) -> (f64, &'static str) {
    let mut at = 0;
    while number >= base && at < 4 {
        number /= base;
        at += 1;
    }
    (number, names[at])
}

/// A percentage with two significant digits: `33%`, `0.12%`.
pub fn percent(number: f64) -> String {
    if number <= 0.0 {
        return "0%".into();
    }
    if number >= 100.0 {
        return format!("{number:.0}%");
    }
    let decimals = (1 - number.log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{number:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_rates_of_1000() {
        assert_eq!(parse_bytes("128K"), Ok(131072));
        assert_eq!(parse_bytes("1.5m"), Ok(1572864));
        assert_eq!(parse_rate("50M"), Ok(50_000_000));
        assert_eq!(parse_rate("2.5G"), Ok(2_500_000_000));
        for text in ["", "K", "-1", "1x", "1e3", "1MB", "99999999999T", "é"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(amount(131072.0), " 128 KBytes");
        assert_eq!(amount(1310720.0), "1.25 MBytes");
        assert_eq!(Format::default().rate(1_050_000.0), "1.05 Mbits/sec");
        assert_eq!(Format::default().rate(12_000.0), "12.0 Kbits/sec");
        assert_eq!(Format::parse("g").unwrap().rate(1.5e9), "1.50 Gbits/sec");
        assert_eq!(Format::parse("M").unwrap().rate(8.0 * 1048576.0), "1.00 MBytes/sec");
        assert!(Format::parse("x").is_err());
    }

    #[test]
    fn percentages_have_two() {
        for (number, text) in [(0.0, "0%"), (33.333, "33%"), (0.1234, "0.12%"), (5.04, "5%"), (100.0, "100%")] {
            assert_eq!(percent(number), text);
        }
    }
}
