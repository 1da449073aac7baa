//! A search of every interleaving up to a bound, breadth first, with `std` alone.
//!
//! States are interned: each part of a world is kept once and known by a number, and a state is its
//! parts' numbers. What differs only in how many faults are left is one state, searched with the
//! most that were ever left: lives with fewer faults come first. So a trace that is printed has the
//! fewest faults, and among those the fewest acts.

pub(crate) mod properties;
pub(crate) mod world;

use properties::{Broken, DAILY_ENDS, DRAIN_ENDS, STOP_ENDS, short};
use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
    rc::Rc,
};
use world::{Act, Bounds, Computes, Core, Flow, Left, Message, NOW, Turn, World};

use lifecycle::{
    Millis,
    compute::ComputePhase,
    deadlines,
    session::{Event, Kind, Operation, Phase},
};

/// The most time from the deletion of a compute resource until no session is on it: its sessions
/// are told once more, and stop.
const DRAIN_BOUND: Millis = deadlines::COMPUTE_RETRY + deadlines::STOP_BOUND_ON_ONE_MACHINE;

/// The end of a search.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The states visited.
    pub(crate) states: usize,
    /// The number of lives with each number of faults.
    pub(crate) by_faults: Vec<usize>,
    /// The acts tried.
    pub(crate) acts: usize,
    /// The longest trace, in acts.
    pub(crate) depth: usize,
    /// Whether everything within the bounds was visited, and not only as much as the cap allows.
    pub(crate) is_complete: bool,
    /// The longest time from a stop to Stopped, once faults have ended.
    pub(crate) longest_stop: Millis,
    /// The longest time from a stop until nothing at all is left, of a life whose messages all
    /// came.
    pub(crate) longest_end: Millis,
    /// Each change of phase that was seen.
    pub(crate) edges: std::collections::BTreeSet<(Phase, Phase)>,
    pub(crate) broken: Option<(Broken, Vec<String>)>,
}

/// Searches until something is broken, everything was visited, or `cap` states were.
pub(crate) fn search(core: &Core, bounds: &Bounds, cap: usize) -> Found {
    let mut search = Search {
        core,
        bounds,
        parts: Parts::default(),
        seen: HashMap::default(),
        states: Vec::new(),
        ends: HashMap::default(),
        drained: HashMap::default(),
        daily: HashMap::default(),
    };
    let mut found = Found {
        is_complete: true,
        ..Found::default()
    };
    let mut levels: Vec<VecDeque<u32>> = vec![VecDeque::new(); usize::from(bounds.faults) + 1];
    let first = World::new(bounds);
    search.add(&first, None, 0);
    levels[0].push_back(0);
    found.by_faults = vec![0; levels.len()];
    let mut limit = cap;
    for level in 0..levels.len() {
        // First all that follows without a further fault.
        let mut reached = Vec::new();
        while let Some(index) = levels[level].pop_front() {
            reached.push(index);
            let world = search.world(index, 0);
            if let Err(broken) = search.drain_ends(&world).and_then(|()| search.daily_ends(&world)) {
                return search.done(found, Some((broken, index, None)));
            }
            match search.end_of(&world) {
                Ok((stop, end)) => {
                    found.longest_stop = found.longest_stop.max(stop);
                    found.longest_end = found.longest_end.max(end);
                }
                Err(broken) => return search.done(found, Some((broken, index, None))),
            }
            for act in world.acts(core, bounds) {
                match search.follow(&mut found, &world, index, act, limit) {
                    Ok(new) => levels[level].extend(new),
                    Err(broken) => return search.done(found, Some(broken)),
                }
            }
        }
        found.by_faults[level] = reached.len();
        let left = bounds.faults - level as u8;
        // Each number of faults gets its share of what the cap allows.
        if left > 0 {
            limit = search.states.len() + (cap - search.states.len()) / usize::from(left);
        }
        for index in reached.into_iter().filter(|_| left > 0) {
            let world = search.world(index, left);
            for act in world
                .acts(core, bounds)
                .into_iter()
                .filter(|act| act.is_fault(&world, core))
            {
                match search.follow(&mut found, &world, index, act, limit) {
                    Ok(new) => levels[level + 1].extend(new),
                    Err(broken) => return search.done(found, Some(broken)),
                }
            }
        }
    }
    search.done(found, None)
}

/// A broken property, with the state or the act in it.
type Seen = (Broken, u32, Option<Act>);

type Numbered<K, V> = HashMap<K, V, BuildHasherDefault<Quick>>;

struct Search<'a> {
    core: &'a Core,
    bounds: &'a Bounds,
    parts: Parts,
    seen: Numbered<Box<[u32]>, u32>,
    states: Vec<State>,
    /// Bounds of states in which nothing fails any more: the time until each session is down, and
    /// until nothing is left.
    ends: Numbered<Box<[u32]>, (Millis, Millis)>,
    /// Likewise, how long until no compute resource is draining.
    drained: Numbered<Box<[u32]>, Millis>,
    /// Likewise, how long sessions are there once the time of the day is used up.
    daily: Numbered<Box<[u32]>, Millis>,
}

struct State {
    key: Box<[u32]>,
    from: Option<(u32, Act)>,
    depth: u32,
}

#[derive(Default)]
struct Parts {
    flows: Interned<Flow>,
    computes: Interned<Computes>,
    bags: Interned<Vec<Message>>,
}

struct Interned<T> {
    numbers: Numbered<Rc<T>, u32>,
    all: Vec<Rc<T>>,
}

/// A hash for parts that nobody chooses to collide: most of a search's time is spent on telling
/// parts apart.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

impl<T> Default for Interned<T> {
    fn default() -> Self {
        Self {
            numbers: HashMap::default(),
            all: Vec::new(),
        }
    }
}

impl<T: Eq + Hash> Interned<T> {
    fn number(&mut self, part: &Rc<T>) -> u32 {
        if let Some(number) = self.numbers.get(part) {
            return *number;
        }
        let number = self.all.len() as u32;
        self.all.push(part.clone());
        self.numbers.insert(part.clone(), number);
        number
    }
}

impl Parts {
    fn key(&mut self, world: &World) -> Box<[u32]> {
        let mut key: Vec<u32> = world.flows.iter().map(|flow| self.flows.number(flow)).collect();
        key.push(self.computes.number(&world.computes));
        key.push(self.bags.number(&world.bag));
        let Left {
            activities,
            asks,
            drains,
            starts,
            ..
        } = world.left;
        key.push(u32::from(starts) << 24 | u32::from(drains) << 16 | u32::from(activities) << 8 | u32::from(asks));
        key.into()
    }
}

impl Search<'_> {
    /// Lets `act` happen in the world of a state, and says which state that makes if it is a new
    /// one.
    fn follow(
        &mut self,
        found: &mut Found,
        world: &World,
        index: u32,
        act: Act,
        limit: usize,
    ) -> Result<Option<u32>, Seen> {
        found.acts += 1;
        let mut turn = Turn {
            core: self.core,
            world: world.clone(),
            broken: None,
        };
        turn.act(&act);
        if let Some(broken) = turn.broken {
            return Err((broken, index, Some(act)));
        }
        for (before, after) in world.flows.iter().zip(&turn.world.flows) {
            if before.session.phase != after.session.phase {
                found.edges.insert((before.session.phase, after.session.phase));
            }
        }
        if self.states.len() >= limit {
            found.is_complete = false;
            return Ok(None);
        }
        let depth = self.states[index as usize].depth + 1;
        let Some(new) = self.add(&turn.world, Some((index, act)), depth) else {
            return Ok(None);
        };
        found.depth = found.depth.max(depth as usize);
        match properties::of_world(self.core, &turn.world) {
            Some(broken) => Err((broken, new, None)),
            None => Ok(Some(new)),
        }
    }

    fn add(&mut self, world: &World, from: Option<(u32, Act)>, depth: u32) -> Option<u32> {
        let key = self.parts.key(world);
        if self.seen.contains_key(&key) {
            return None;
        }
        let index = self.states.len() as u32;
        self.seen.insert(key.clone(), index);
        self.states.push(State { key, from, depth });
        Some(index)
    }

    fn world(&self, index: u32, faults: u8) -> World {
        let key = &self.states[index as usize].key;
        let (flows, rest) = key.split_at(key.len() - 3);
        World {
            flows: flows
                .iter()
                .map(|n| self.parts.flows.all[*n as usize].clone())
                .collect(),
            computes: self.parts.computes.all[rest[0] as usize].clone(),
            bag: self.parts.bags.all[rest[1] as usize].clone(),
            left: Left {
                faults,
                activities: (rest[2] >> 8) as u8,
                asks: rest[2] as u8,
                drains: (rest[2] >> 16) as u8,
                starts: (rest[2] >> 24) as u8,
            },
        }
    }

    /// Stops every session of a world in which nothing goes wrong any more. Returns the time until
    /// all were Stopped, and until nothing was left. Everything is delivered, and time passes only
    /// when nothing else is to do.
    fn end_of(&mut self, world: &World) -> Result<(Millis, Millis), Broken> {
        let mut world = world.clone();
        world.left = Left {
            faults: 0,
            activities: 0,
            asks: 0,
            drains: 0,
            starts: 0,
        };
        let mut turn = Turn {
            core: self.core,
            world,
            broken: None,
        };
        for f in 0..turn.world.flows.len() {
            let flow = Rc::make_mut(&mut turn.world.flows[f]);
            flow.commands = 0;
            turn.accept(
                f,
                Event::Wanted {
                    operation: Operation::new("last", Kind::Stop, None),
                },
                world::Way::Through,
            );
        }
        let mut path: Vec<(Box<[u32]>, bool, Millis)> = Vec::new();
        let (mut stop, mut end);
        loop {
            let key = self.parts.key(&turn.world);
            if let Some(known) = self.ends.get(&key) {
                (stop, end) = *known;
                break;
            }
            let is_down = turn.world.flows.iter().all(|flow| flow.session.phase == Phase::Stopped);
            if turn.world.is_over() {
                (stop, end) = (0, 0);
                self.ends.insert(key, (0, 0));
                break;
            }
            if let Some(broken) = turn
                .broken
                .take()
                .or_else(|| properties::of_world(self.core, &turn.world))
            {
                return Err(broken);
            }
            let took: Millis = path.iter().map(|(_, _, time)| time).sum();
            let act = match turn.world.bag.is_empty() {
                false => Act::Deliver(0, world::Way::Through),
                true => turn.world.must(self.core),
            };
            let time = if matches!(act, Act::Wait) {
                turn.world.until_next(self.core)
            } else {
                0
            };
            if path.len() > 500 || took > 4 * 1_860_000 || (matches!(act, Act::Wait) && time == 0) {
                let states: Vec<String> = turn.world.flows.iter().map(|flow| short(&flow.session)).collect();
                return Err(Broken {
                    property: STOP_ENDS,
                    what: format!("after {took} ms and {} acts: {states:?}", path.len()),
                });
            }
            path.push((key, is_down, time));
            turn.act(&act);
        }
        for (key, is_down, time) in path.into_iter().rev() {
            end += time;
            stop = if is_down { 0 } else { stop + time };
            self.ends.insert(key, (stop, end));
        }
        if stop > deadlines::STOP_BOUND_ON_ONE_MACHINE {
            return Err(Broken {
                property: STOP_ENDS,
                what: format!("it took {stop} ms"),
            });
        }
        Ok((stop, end))
    }

    /// Lets a world go on in which nothing goes wrong and nobody wants anything any more, until no
    /// compute resource is draining.
    fn drain_ends(&mut self, world: &World) -> Result<(), Broken> {
        let mut known = std::mem::take(&mut self.drained);
        let ends = self.goes_on_until(world, &mut known, (DRAIN_ENDS, DRAIN_BOUND), |world| {
            world.is_draining().then_some(true)
        });
        self.drained = known;
        ends
    }

    /// Likewise, until the sessions of who may have them for some time of the day are gone once
    /// that is used up, or at all.
    fn daily_ends(&mut self, world: &World) -> Result<(), Broken> {
        let mut known = std::mem::take(&mut self.daily);
        let ends = self.goes_on_until(world, &mut known, (DAILY_ENDS, DRAIN_BOUND), |world| {
            let (is_used_up, is_there) = world.is_over_daily();
            is_there.then_some(is_used_up)
        });
        self.daily = known;
        ends
    }

    /// Lets a world go on until `goes_on` is `None`, within a bound of time: that in which it says
    /// `true`.
    fn goes_on_until(
        &mut self,
        world: &World,
        known: &mut Numbered<Box<[u32]>, Millis>,
        (property, bound): (&'static str, Millis),
        goes_on: impl Fn(&World) -> Option<bool>,
    ) -> Result<(), Broken> {
        let mut world = world.clone();
        world.left = Left {
            faults: 0,
            activities: 0,
            asks: 0,
            drains: 0,
            starts: 0,
        };
        for flow in &mut world.flows {
            Rc::make_mut(flow).commands = 0;
        }
        let mut turn = Turn {
            core: self.core,
            world,
            broken: None,
        };
        let mut path: Vec<(Box<[u32]>, Millis)> = Vec::new();
        let mut took = 0;
        while let Some(counts) = goes_on(&turn.world) {
            let key = self.parts.key(&turn.world);
            if let Some(known) = known.get(&key) {
                took = *known;
                break;
            }
            let act = match turn.world.bag.is_empty() {
                false => Act::Deliver(0, world::Way::Through),
                true => turn.world.must(self.core),
            };
            let is_wait = matches!(act, Act::Wait);
            let time = if is_wait { turn.world.until_next(self.core) } else { 0 };
            let so_far: Millis = path.iter().map(|(_, time)| time).sum();
            if path.len() > 500 || so_far > bound || (is_wait && time == 0) {
                let states: Vec<String> = turn.world.flows.iter().map(|flow| short(&flow.session)).collect();
                return Err(Broken {
                    property,
                    what: format!("not after {so_far} ms and {} acts: {states:?}", path.len()),
                });
            }
            path.push((key, if counts { time } else { 0 }));
            turn.act(&act);
        }
        for (key, time) in path.into_iter().rev() {
            took += time;
            known.insert(key, took);
        }
        if took > bound {
            return Err(Broken {
                property,
                what: format!("it took {took} ms"),
            });
        }
        Ok(())
    }

    fn done(&self, mut found: Found, broken: Option<Seen>) -> Found {
        found.states = self.states.len();
        found.broken = broken.map(|(broken, index, act)| {
            let trace = self.trace(index, act);
            (broken, trace)
        });
        found
    }

    /// The acts that led to a state, each with what it made of the sessions.
    fn trace(&self, index: u32, last: Option<Act>) -> Vec<String> {
        let mut acts: Vec<Act> = last.into_iter().collect();
        let mut at = index;
        while let Some((from, act)) = &self.states[at as usize].from {
            acts.push(act.clone());
            at = *from;
        }
        acts.reverse();
        let mut turn = Turn {
            core: self.core,
            world: World::new(self.bounds),
            broken: None,
        };
        let mut lines = Vec::new();
        for act in acts {
            let what = match &act {
                Act::Deliver(i, way) => format!("{way:?}: {:?}", turn.world.bag[*i]),
                Act::Repeat(i) | Act::Lose(i) | Act::InstallFails(i) | Act::NoImage(i) => {
                    format!("{act:?}: {:?}", turn.world.bag[*i])
                }
                _ => format!("{act:?}"),
            };
            turn.act(&act);
            let sessions: Vec<String> = turn.world.flows.iter().map(|flow| short(&flow.session)).collect();
            lines.push(format!("{what}\n      -> {}", sessions.join(" | ")));
        }
        lines
    }
}

impl World {
    fn is_draining(&self) -> bool {
        let mut rows = self.computes.rows.values();
        rows.any(|row| row.phase == ComputePhase::Draining)
    }

    /// The time until anything is due.
    fn until_next(&self, core: &Core) -> Millis {
        self.next_moment(core, true).map_or(0, |moment| moment - NOW)
    }
}

impl Found {
    /// Prints what was visited, and fails with the trace if something was broken.
    ///
    /// * `complete`: whether the cap must have left nothing out that is within the bounds.
    #[allow(dead_code, reason = "the broken cores are not whole")]
    pub(crate) fn expect_whole(&self, world: &str, complete: bool) {
        println!(
            "{world}: {} states ({:?} by faults), {} acts, {} deep, {}; a stop took at most {} ms, its last trace {} ms",
            self.states,
            self.by_faults,
            self.acts,
            self.depth,
            if self.is_complete {
                "all within the bounds"
            } else {
                "as many as the cap allows"
            },
            self.longest_stop,
            self.longest_end,
        );
        if let Some((broken, trace)) = &self.broken {
            panic!(
                "{world}: {}\n  {}\n  after\n    {}",
                broken.property,
                broken.what,
                trace.join("\n    ")
            );
        }
        assert!(self.is_complete || !complete, "{world}: the cap leaves something out");
    }
}
