//! What the options mean: the settings of a server and of a test, and the engines to measure with.

use super::definitions::{Common, Missing, Run, Serve};
use crate::system;
use std::net::IpAddr;
use std::time::Duration;
use wharf::{FileEngine, SocketEngine};
use wharf_perf::client::{self, Machinery};
use wharf_perf::protocol::parameters::{self, Parameters, Protocol};
use wharf_perf::report::printer::Form;
use wharf_perf::server;

impl Missing {
    fn check(&self) -> Result<(), String> {
        let login =
            [&self.username, &self.rsa_public_key_path, &self.rsa_private_key_path, &self.authorized_users_path];
        let sentence = match () {
            () if self.sctp => "SCTP is not there (--sctp); measure with TCP, or with UDP (-u)",
            () if self.mptcp => "multipath TCP is not there (-m); measure with TCP",
            () if login.iter().any(|it| it.is_some()) => {
                "logins with RSA keys are not there (--username, --rsa-…, --authorized-users-path); keep strangers out with -B or \
                 a firewall"
            }
            () => return Ok(()),
        };
        Err(sentence.into())
    }
}

/// A choice of engines, and what it is called.
#[derive(Clone, Debug)]
pub struct Engine {
    pub name: String,
    pub sockets: Option<SocketEngine>,
    pub files: Option<FileEngine>,
}

impl Common {
    /// The processor of this end, or the one that the client wishes for the server.
    pub fn processor(&self, here: bool) -> Option<u32> {
        let (ours, theirs) = self.affinity?;
        if here { ours } else { theirs }
    }

    /// The engines to measure with, each once.
    pub fn engines(&self) -> Result<Vec<Engine>, String> {
        if !system::CHOOSES_ENGINES && self.engine.iter().any(|name| name != "auto") {
            return Err("this system's own completion port is the only engine here; leave --engine out".into());
        }
        let all = self.engine.iter().any(|name| name == "all");
        let named = |name: &str| all || self.engine.iter().any(|it| it == name);
        let (ring, threads) = (named("io_uring"), named("threads"));
        if !all && (ring || threads) && self.file.is_none() {
            return Err("--engine io_uring and threads wait for the disk, which a test without -F does not use; give epoll, poll, \
                        or a file"
                .into());
        }
        let mut sockets = vec![];
        // Of the socket engines, epoll is what `Auto` chooses here.
        sockets.extend(named("epoll").then_some(("epoll", Some(SocketEngine::Auto))));
        sockets.extend(named("poll").then_some(("poll", Some(SocketEngine::Poll))));
        if sockets.is_empty() {
            sockets.push(("", None));
        }
        let mut files = vec![];
        if self.file.is_some() {
            files.extend(ring.then_some(("io_uring", Some(FileEngine::Ring))));
            files.extend(threads.then_some(("threads", Some(FileEngine::Threads))));
        }
        if files.is_empty() {
            files.push(("", None));
        }
        let mut engines = Vec::new();
        for (socket_name, socket) in &sockets {
            for (file_name, file) in &files {
                let names: Vec<&str> = [*socket_name, *file_name].into_iter().filter(|name| !name.is_empty()).collect();
                let name = if names.is_empty() { "auto".into() } else { names.join("+") };
                engines.push(Engine { name, sockets: *socket, files: *file });
            }
        }
        Ok(engines)
    }

    /// Without the engines, of which there may be several.
    fn machinery(&self) -> Machinery {
        Machinery {
            threads: self.workers.map(usize::from),
            concurrency: self.concurrency.map_or(0, usize::from),
            keep_alive: self.cntl_ka.unwrap_or_default(),
            ..Machinery::default()
        }
    }

    fn form(&self) -> Form {
        let default = Form::default();
        Form {
            json: self.json,
            json_stream: self.json_stream || self.json_stream_full_output,
            full: self.json_stream_full_output,
            format: self.format.unwrap_or_default(),
            verbose: self.details,
            cpu: self.cpu,
            version: self.json_version.clone().unwrap_or(default.version),
        }
    }

    /// The report is for programs.
    pub fn is_json(&self) -> bool {
        self.json || self.json_stream || self.json_stream_full_output
    }

    fn family(&self) -> Option<u8> {
        match (self.four, self.six) {
            (true, _) => Some(4),
            (_, true) => Some(6),
            _ => None,
        }
    }

    fn origin(&self) -> Result<client::Origin, String> {
        let (text, device) = match self.bind.as_deref().map(|bind| bind.split_once('%').ok_or(bind)) {
            None => (None, None),
            Some(Ok((address, device))) => (Some(address), Some(device.to_owned())),
            Some(Err(address)) => (Some(address), None),
        };
        let address = match text {
            Some(text) => Some(text.parse::<IpAddr>().map_err(|_| {
                format!("{text:?} is no address of this machine to bind to; give one such as 192.0.2.1 or ::1 with -B")
            })?),
            None => None,
        };
        Ok(client::Origin { address, device: self.bind_dev.clone().or(device) })
    }
}

impl Serve {
    pub fn settings(&self) -> Result<server::Options, String> {
        let common = &self.common;
        common.missing.check()?;
        let origin = common.origin()?;
        let [engine] = &common.engines()?[..] else {
            return Err(
                "a server has one engine for sockets and one for files; compare them with `wharf perf run`".into()
            );
        };
        Ok(server::Options {
            port: common.port,
            address: origin.address,
            device: origin.device,
            family: common.family(),
            one_off: self.one_off,
            idle_timeout: self.idle_timeout.map(Duration::from_secs),
            max_clients: self.max_clients.into(),
            max_seconds: self.server_max_duration,
            // 0 is no limit, as a client's -b 0 is none.
            bitrate_limit: self.server_bitrate_limit.map(|(rate, _)| rate).filter(|rate| *rate > 0),
            bitrate_window: Duration::from_secs(self.server_bitrate_limit.map_or(5, |(_, seconds)| seconds)),
            max_streams: self.max_streams.into(),
            max_parameter_bytes: usize::try_from(self.max_parameters).unwrap_or(usize::MAX),
            max_pending: self.max_pending.into(),
            handshake_timeout: Duration::from_millis(self.handshake_timeout),
            setup_timeout: Duration::from_millis(self.setup_timeout),
            interval: Duration::from_secs_f64(common.interval),
            receive_timeout: Duration::from_millis(common.rcv_timeout.unwrap_or(120_000)),
            form: common.form(),
            machinery: Machinery { socket_engine: engine.sockets, file_engine: engine.files, ..common.machinery() },
            file: common.file.clone(),
        })
    }
}

impl Run {
    pub fn settings(&self) -> Result<client::Options, String> {
        let common = &self.common;
        common.missing.check()?;
        common.engines()?;
        let parameters = self.parameters()?;
        self.check_ports()?;
        self.check_plot()?;
        Ok(client::Options {
            parameters,
            family: common.family(),
            origin: common.origin()?,
            client_port: self.cport,
            connect_timeout: self.connect_timeout.map(Duration::from_millis),
            receive_timeout: Duration::from_millis(common.rcv_timeout.unwrap_or(30_000)),
            send_timeout: self.snd_timeout.map(Duration::from_millis),
            interval: Duration::from_secs_f64(common.interval),
            form: common.form(),
            machinery: common.machinery(),
            file: common.file.clone(),
            ..client::Options::new(self.host.clone(), common.port)
        })
    }

    fn parameters(&self) -> Result<Parameters, String> {
        let (common, udp) = (&self.common, self.udp);
        let (len, window) = (self.block_bytes()?, self.window_bytes()?);
        let (rate, burst) = self.bitrate.unwrap_or((None, 0));
        let (bytes, blockcount) = self.amount();
        let by_amount = bytes.is_some() || blockcount.is_some();
        Ok(Parameters {
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            omit: self.omit,
            time: if by_amount { 0 } else { self.time.unwrap_or(10) },
            num: bytes.unwrap_or(0),
            blocks: blockcount.unwrap_or(0),
            mss: self.set_mss.unwrap_or(0),
            nodelay: self.no_delay,
            parallel: self.parallel.into(),
            reverse: self.reverse,
            bidirectional: self.bidir,
            window,
            len,
            bandwidth: rate.unwrap_or(if udp && self.send_interval_us.is_none() { parameters::UDP_RATE } else { 0 }),
            fq_rate: self.fq_rate.unwrap_or(0),
            burst,
            tos: self.tos.or(self.dscp.map(|dscp| dscp * 4)).unwrap_or(0),
            flow_label: self.flowlabel.unwrap_or(0),
            title: self.title.clone(),
            extra_data: self.extra_data.clone(),
            congestion: self.congestion.clone(),
            get_server_output: self.get_server_output,
            counters_64bit: self.udp_counters_64bit,
            repeating_payload: self.repeating_payload,
            zerocopy: self.zerocopy,
            dont_fragment: self.dont_fragment,
            skip_rx_copy: self.skip_rx_copy,
            gsro: self.gsro,
            server_affinity: common.processor(false),
            auth_token: None,
            verify: self.verify,
            latency: self.latency,
            send_interval_us: self.send_interval_us.unwrap_or(0),
            two_phase: self.two_phase,
        })
    }

    fn block_bytes(&self) -> Result<usize, String> {
        let Some(len) = self.length else { return Ok(0) };
        let (name, least, most) = if self.udp {
            ("UDP", parameters::DATAGRAM_BYTES_MIN, parameters::DATAGRAM_BYTES_MAX)
        } else {
            ("TCP", 1, parameters::BLOCK_BYTES_MAX)
        };
        let bytes = usize::try_from(len).ok().filter(|len| (least..=most).contains(len));
        let bytes =
            bytes.ok_or_else(|| format!("-l {len} is out of range: {name} blocks have {least} to {most} bytes"))?;
        if self.verify && bytes > 0 && bytes < parameters::VERIFIED_BYTES_MIN {
            let least = parameters::VERIFIED_BYTES_MIN;
            return Err(format!("-l {bytes} is too small for --verify, which needs {least} bytes"));
        }
        Ok(bytes)
    }

    fn window_bytes(&self) -> Result<usize, String> {
        match self.window.unwrap_or(0) {
            window if window > parameters::WINDOW_BYTES_MAX as u64 => {
                Err(format!("-w {window} is out of range: at most 512M"))
            }
            window => Ok(window as usize),
        }
    }

    /// How many bytes or blocks are to be sent, if there is a number.
    fn amount(&self) -> (Option<u64>, Option<u64>) {
        // An amount of nothing is none, as for iperf3: not a test without an end.
        let bytes = self.bytes.filter(|bytes| *bytes > 0);
        let blocks = self.blockcount.filter(|blocks| *blocks > 0);
        match (&self.common.file, self.reverse, self.time, bytes, blocks) {
            // A file ends where it ends. One that cannot be read is the test's failure, and said when it is opened.
            (Some(file), false, None, None, None) => (std::fs::metadata(file).ok().map(|file| file.len().max(1)), None),
            _ => (bytes, blocks),
        }
    }

    fn check_ports(&self) -> Result<(), String> {
        let ports = self.parallel * if self.bidir { 2 } else { 1 };
        if self.cport > 0 && self.cport.checked_add(ports - 1).is_none() {
            return Err(format!("--cport {} leaves no ports for {ports} streams; give a lower one", self.cport));
        }
        Ok(())
    }

    /// What cannot be written is said before the test, not after it.
    fn check_plot(&self) -> Result<(), String> {
        let Some(file) = &self.plot else { return Ok(()) };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            return Err(format!("{} cannot be written (--plot): there is no such folder", file.display()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::definitions::of_arguments;

    #[test]
    fn engines_are_a_list_and_those_of_files_need_a_file() {
        let names = |options: &[&str]| {
            let own: Vec<&str> = [&["host"], options].concat();
            of_arguments(&own)
                .unwrap()
                .common
                .engines()
                .map(|engines| engines.into_iter().map(|engine| engine.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["auto"]);
        assert_eq!(names(&["--engine", "poll,epoll"]).unwrap(), ["epoll", "poll"]);
        assert_eq!(names(&["--engine", "all"]).unwrap(), ["epoll", "poll"]);
        assert_eq!(
            names(&["--engine", "all", "-F", "f"]).unwrap(),
            ["epoll+io_uring", "epoll+threads", "poll+io_uring", "poll+threads"]
        );
        assert_eq!(names(&["--engine", "threads", "-F", "f"]).unwrap(), ["threads"]);
        assert!(names(&["--engine", "threads"]).unwrap_err().contains("-F"));
    }

    #[test]
    fn what_could_never_end_is_refused_or_as_iperf3_takes_it() {
        for nothing in [["-n", "0"], ["-k", "0"]] {
            let parameters = of_arguments(&["host", nothing[0], nothing[1]]).unwrap().settings().unwrap().parameters;
            assert_eq!((parameters.time, parameters.blocks_wanted()), (10, None), "{nothing:?}");
        }
        let settings = |options: &[&str]| of_arguments(&[&["host"], options].concat()).unwrap().settings();
        assert!(settings(&["--cport", "65534", "-P", "2"]).is_ok());
        assert!(settings(&["--cport", "65534", "-P", "2", "--bidir"]).unwrap_err().contains("--cport 65534"));
        assert!(settings(&["--plot", "curve.svg"]).is_ok());
        assert!(settings(&["--plot", "/no/such/curve.svg"]).unwrap_err().contains("--plot"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (option, words) in [("--sctp", "SCTP"), ("-m", "multipath"), ("--username=u", "RSA")] {
            let said = of_arguments(&["host", option]).unwrap().settings().unwrap_err();
            assert!(said.contains(words), "{option}: {said}");
        }
    }
}
