//! The values of options, as iperf3 reads them where it has them. What is refused is told with what is allowed.

use std::time::Duration;
use wharf_perf::client::KeepAlive;
use wharf_perf::protocol::parameters;
use wharf_perf::report::units::parse_rate;

pub(super) fn parse_interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds == 0.0 || (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("give 0, or 0.1 to 60 seconds".into()),
    }
}

pub(super) fn parse_pause(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86400.0).contains(seconds));
    seconds.ok_or_else(|| "give 0 to 86400 seconds".into())
}

/// "NaN" is a number to the parser, and would let everything pass.
pub(super) fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "give 0 to 100 percent".into())
}

pub(super) fn parse_engine(text: &str) -> Result<String, String> {
    match text {
        "auto" | "epoll" | "poll" | "io_uring" | "threads" | "all" => Ok(text.into()),
        _ => {
            Err("the engines here are epoll and poll for sockets, io_uring and threads for files (-F); or auto, or all"
                .into())
        }
    }
}

pub(super) fn parse_limit(text: &str) -> Result<(u64, u64), String> {
    let (rate, seconds) = text.split_once('/').unwrap_or((text, "5"));
    let seconds = seconds.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    Ok((parse_rate(rate)?, seconds.ok_or("the time behind the slash is 1 to 3600 seconds")?))
}

pub(super) fn parse_keep_alive(text: &str) -> Result<KeepAlive, String> {
    let default = KeepAlive::default();
    let wrong = || "give IDLE/INTERVAL/COUNT: 1 to 32767 seconds twice, and 1 to 127 questions".to_owned();
    let number = |part: Option<&str>, most: u32, default: u64| match part {
        None | Some("") => Ok(default),
        Some(part) => part.parse::<u32>().ok().filter(|it| (1..=most).contains(it)).map(u64::from).ok_or_else(wrong),
    };
    let mut parts = text.split('/');
    let idle = number(parts.next(), 32_767, default.idle.as_secs())?;
    let interval = number(parts.next(), 32_767, default.interval.as_secs())?;
    let count = number(parts.next(), 127, default.count.into())?;
    if parts.next().is_some() {
        return Err(wrong());
    }
    Ok(KeepAlive { idle: Duration::from_secs(idle), interval: Duration::from_secs(interval), count: count as u32 })
}

pub(super) type Affinity = (Option<u32>, Option<u32>);

pub(super) fn parse_affinity(text: &str) -> Result<Affinity, String> {
    let number = |text: &str| match text {
        "" => Ok(None),
        text => match text.parse::<u32>() {
            Ok(number) if number <= 1024 => Ok(Some(number)),
            _ => Err("give the number of a processor, or two with a comma between them".to_owned()),
        },
    };
    let (ours, theirs) = text.split_once(',').unwrap_or((text, ""));
    Ok((number(ours)?, number(theirs)?))
}

pub(super) fn parse_bitrate(text: &str) -> Result<(Option<u64>, u64), String> {
    let (rate, burst) = match text.split_once('/') {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let burst = match burst {
        None => 0,
        Some(burst) => burst
            .parse()
            .ok()
            .filter(|burst| (1..=parameters::BURST_MAX).contains(burst))
            .ok_or("the burst behind the slash is 1 to 1000 blocks")?,
    };
    // Without a rate the burst has nothing to do.
    Ok((if rate.is_empty() { None } else { Some(parse_rate(rate)?) }, burst))
}

pub(super) fn parse_tos(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    };
    number.filter(|number| *number <= 255).ok_or_else(|| "give 0 to 255, 0x0 to 0xff or 00 to 0377".into())
}

pub(super) fn parse_label(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let number = number.filter(|number| (1..=parameters::FLOW_LABEL_MAX).contains(number));
    number.ok_or_else(|| "give 1 to 1048575, or 0x1 to 0xfffff".into())
}

pub(super) fn parse_dscp(text: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let digit = |at: usize, most: u32| lower[at..].chars().next()?.to_digit(10).filter(|digit| *digit <= most);
    let named = match lower.len() {
        2 if lower == "ef" => Some(46),
        2 if lower == "be" => Some(0),
        3 if lower.starts_with("cs") => digit(2, 7).map(|class| class * 8),
        4 if lower.starts_with("af") && lower.is_ascii() => {
            digit(2, 4).zip(digit(3, 3)).filter(|it| it.0 > 0 && it.1 > 0).map(|(class, drop)| class * 8 + drop * 2)
        }
        _ => None,
    };
    let number = named.or_else(|| parse_tos(text).ok()).filter(|number| *number <= 63);
    number.ok_or_else(|| "give 0 to 63, or a name: ef, be, cs0 to cs7, af11 to af43".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_would_let_everything_pass_is_refused() {
        for share in ["nan", "101", "inf"] {
            assert!(parse_percent(share).is_err(), "{share}");
        }
    }

    #[test]
    fn words_are_read_as_iperf3_reads_them() {
        assert_eq!(parse_bitrate("50M/10"), Ok((Some(50_000_000), 10)));
        assert_eq!(parse_bitrate("/10"), Ok((None, 10)));
        assert!(parse_bitrate("1M/0").is_err());
        assert_eq!((parse_tos("0x10"), parse_tos("020"), parse_tos("16")), (Ok(16), Ok(16), Ok(16)));
        assert_eq!(
            (parse_dscp("ef"), parse_dscp("AF41"), parse_dscp("cs1"), parse_dscp("8")),
            (Ok(46), Ok(34), Ok(8), Ok(8))
        );
        assert!(parse_dscp("af44").is_err() && parse_dscp("64").is_err() && parse_dscp("a\u{e9}1").is_err());
        assert_eq!(parse_limit("5G"), Ok((5_000_000_000, 5)));
        assert_eq!(parse_limit("1M/2"), Ok((1_000_000, 2)));
        assert!(parse_limit("1M/0").is_err());
        let seconds = Duration::from_secs;
        let keep_alive = |idle, interval, count| KeepAlive { idle: seconds(idle), interval: seconds(interval), count };
        assert_eq!(parse_keep_alive(""), Ok(KeepAlive::default()));
        assert_eq!(parse_keep_alive("5/1/2"), Ok(keep_alive(5, 1, 2)));
        assert_eq!(parse_keep_alive("7"), Ok(keep_alive(7, 10, 3)));
        assert!(parse_keep_alive("0").is_err() && parse_keep_alive("1/1/1/1").is_err());
        assert_eq!(parse_affinity("1,0"), Ok((Some(1), Some(0))));
        assert_eq!(parse_affinity(",2"), Ok((None, Some(2))));
    }
}
