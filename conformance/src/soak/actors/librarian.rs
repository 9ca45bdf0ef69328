//! Files: writes, reads and syncs, by the cache and past it.

use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, Event, File, Player, Stage, lock};
use crate::system;
use fastrand::Rng;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use wharf::Buffer;

/// Writes blocks into a file, and reads what it wrote.
pub(super) struct Librarian {
    stage: Arc<Stage>,
    path: PathBuf,
    state: Mutex<Shelf>,
    _player: Player,
}

struct Shelf {
    random: Rng,
    block: Vec<u8>,
    offset: u64,
    left: usize,
    direct: bool,
}

/// What direct I/O is aligned to.
const UNIT: usize = 4096;
const BLOCKS: u64 = 64;

impl Librarian {
    pub(super) fn enter(stage: &Arc<Stage>, number: usize) -> io::Result<()> {
        let path = stage.directory.join(format!("shelf-{number}"));
        std::fs::write(&path, vec![0; UNIT])?;
        let shelf = Shelf { random: stage.random(), block: Vec::new(), offset: 0, left: 0, direct: false };
        Arc::new(Librarian { stage: stage.clone(), path, state: Mutex::new(shelf), _player: stage.player() }).start();
        Ok(())
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        let direct = {
            let mut state = lock(&self.state);
            state.left = 30;
            state.direct = state.random.bool();
            state.direct
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let plain = options.clone();
        if direct {
            system::direct(&mut options);
        }
        // Not every file system offers direct I/O.
        match stage.port.open(&self.path, &options, ()).or_else(|_| stage.port.open(&self.path, &plain, ())) {
            Ok(file) => self.write(&file),
            Err(error) => stage.fault(format!("a file was not opened: {error}")),
        }
    }

    fn write(self: Arc<Self>, file: &File) {
        let stage = self.stage.clone();
        let (buffer, offset) = {
            let mut state = lock(&self.state);
            let Shelf { random, block, offset, .. } = &mut *state;
            *block = vec![0; UNIT * random.usize(1..4)];
            random.fill(block);
            *offset = random.u64(..BLOCKS) * UNIT as u64;
            (Buffer::aligned(block.len(), UNIT).filled(block), *offset)
        };
        stage.issued(file.write_at(buffer, offset, stage.op(Kind::File, self, 0)));
    }
}

impl Actor for Librarian {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        match event {
            Event::Written { file, result: Ok(_), .. } => {
                let (length, offset, sync) = {
                    let mut state = lock(&self.state);
                    let sync = state.random.u8(..) < 4;
                    (state.block.len(), state.offset, sync)
                };
                if sync {
                    stage.issued(file.sync_data(stage.op(Kind::File, self.clone(), 0)));
                } else {
                    let room = Buffer::aligned(length, UNIT);
                    stage.issued(file.read_at(room, offset, stage.op(Kind::File, self, 0)));
                }
            }
            Event::Synced { file, result: Ok(()) } => self.write(&file),
            Event::Read { file, buffer, result: Ok(_) } => {
                let more = {
                    let mut state = lock(&self.state);
                    stage.check(buffer[..] == state.block[..], "a file does not hold what was written");
                    state.left -= 1;
                    state.left > 0
                };
                if more {
                    self.write(&file);
                } else {
                    drop(file);
                    self.start();
                }
            }
            other => stage.fault(format!("a file: {other:?}")),
        }
    }
}
