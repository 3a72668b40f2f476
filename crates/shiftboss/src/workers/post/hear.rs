//! What comes on a channel: each word goes to core, to the primary that we play, or waits for its subscribers.

use std::collections::VecDeque;
use std::os::fd::AsFd as _;

use serde_json::value::RawValue;
use shiftboss_api::Numbers;
use shiftboss_channel::Reading;
use shiftboss_core::Input;
use shiftboss_core::id::WorkerId;

use super::Mail;
use crate::channel::{Channel, Word};
use crate::log::Log;
use crate::node::Peer;
use crate::os::{clock, kill_points};
use crate::workers::Workers;

impl Workers {
    pub(super) fn hear_channel(&mut self, worker: WorkerId, log: &mut dyn Log, inputs: &mut VecDeque<Input>) {
        let Some(process) = self.processes.get(&worker) else { return };
        if self.post.full.contains(&process.of) {
            return self.pause(worker);
        }
        self.hear_portion(worker, Channel::hear, log, inputs);
        // What came may be what others waited for.
        self.wait_for_room(worker);
        let channel = self.processes.get(&worker).and_then(|process| process.channel.as_ref());
        if let Some(channel) = channel.filter(|channel| channel.has_ended()) {
            self.leave_poller(channel.as_fd());
        }
    }

    fn hear_portion(
        &mut self,
        worker: WorkerId,
        hear: impl FnOnce(&mut Channel, &mut [u8], &mut Vec<Word>) -> Reading,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) -> Reading {
        let Some(process) = self.processes.get_mut(&worker) else { return Reading::Ended };
        let Some(channel) = &mut process.channel else { return Reading::Ended };
        self.post.buffer.resize(PORTION, 0);
        let mut words = Vec::new();
        let reading = hear(channel, &mut self.post.buffer, &mut words);
        kill_points::point("a message was heard");
        // Without it a killed broker process costs the message.
        if channel.wants_rest()
            && let Some(rest) = self.post.rest(self.keeper.as_ref(), worker)
        {
            channel.keep_rest(rest);
        }
        self.post.unrecorded.push(worker);
        self.take_words(worker, words, log, inputs);
        reading
    }

    /// What concerns core is told to core, the rest waits for its subscribers.
    fn take_words(
        &mut self,
        worker: WorkerId,
        words: Vec<Word>,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let (mut left, mut said_ready) = (Vec::new(), false);
        for word in words {
            match word {
                Word::Spoke => inputs.push_back(Input::Spoke { worker }),
                Word::Ready => inputs.push_back(Input::Ready { worker }),
                Word::Standby => inputs.push_back(Input::Standby { worker }),
                Word::HungUp if process.peer.as_ref().is_some_and(Peer::is_leaving) => {
                    self.stage.finishes(worker);
                }
                Word::HungUp => inputs.push_back(Input::HungUp { worker }),
                Word::Garbled => {
                    log.channel_error(&process.broker, worker.0, "it wrote too much that is no message");
                    // Its channel is shut: no notice would reach it.
                    inputs.push_back(Input::HungUp { worker });
                    inputs.push_back(Input::Garbled { worker });
                }
                Word::Numbers(letter) => match numbers_of(&letter) {
                    Ok(numbers) => drop(self.post.numbers.insert(worker, numbers)),
                    // Once is enough: it may say them often.
                    Err(why) => {
                        if self.post.refused_numbers.insert(worker) {
                            let error = format!("its numbers are not taken: {why}");
                            log.channel_error(&process.broker, worker.0, &error);
                        }
                    }
                },
                Word::Node(said) => self.stage.hear(worker, said),
                // As programs for PM2 say it.
                Word::Message { ref letter, .. } if process.says_ready && letter.get() == "\"ready\"" => {
                    process.peer.iter_mut().for_each(Peer::says_ready);
                    said_ready = true;
                }
                Word::Message { .. } | Word::Call { .. } | Word::Reply { .. } => left.push(word),
            }
        }
        if !left.is_empty() {
            let (broker, slot, pid) = (process.of, process.slot.map(|slot| slot.0), process.pid);
            let is_node = process.peer.is_some();
            self.post.mail.push(Mail { worker, broker, pid, slot, is_node, words: left });
        }
        if said_ready {
            self.judge(worker, clock::now(), inputs);
        }
    }

    /// Ends a worker's channel; it sees that, and is given the time of one that has closed it itself. What it has said until
    /// now is heard before.
    pub(crate) fn hang_up(&mut self, worker: WorkerId, log: &mut dyn Log, inputs: &mut VecDeque<Input>) {
        if !self.has_more(worker) {
            return;
        }
        self.hear_rest(worker, log, inputs);
        let channel = self.processes.get_mut(&worker).and_then(|process| process.channel.as_mut());
        if let Some(channel) = channel.filter(|channel| !channel.has_ended()) {
            channel.end();
            inputs.push_back(Input::HungUp { worker });
        }
        if let Some(channel) = self.processes.get(&worker).and_then(|process| process.channel.as_ref()) {
            self.leave_poller(channel.as_fd());
        }
    }

    /// All that a dead worker has said comes before the news of its death. It stays on its channel, as what others have said
    /// does until it is recorded: a successor that is told of this death hears it again.
    pub(in crate::workers) fn hear_last_words(
        &mut self,
        worker: WorkerId,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) {
        self.hear_rest(worker, log, inputs);
        // That it has closed its channel is no news any more.
        inputs.retain(|input| !matches!(input, Input::HungUp { worker: of } if *of == worker));
    }

    /// What is in the channel, and what comes meanwhile, within bounds.
    fn hear_rest(&mut self, worker: WorkerId, log: &mut dyn Log, inputs: &mut VecDeque<Input>) {
        for _ in 0..LAST_PORTIONS {
            if self.hear_portion(worker, Channel::hear_last, log, inputs) == Reading::Ended
                || !self.has_more(worker)
            {
                break;
            }
        }
    }

    fn has_more(&self, worker: WorkerId) -> bool {
        let channel = self.processes.get(&worker).and_then(|process| process.channel.as_ref());
        channel.is_some_and(|channel| !channel.has_ended())
    }

    /// What was heard is recorded: nobody needs to hear it again.
    pub(in crate::workers) fn post_is_recorded(&mut self) {
        for worker in std::mem::take(&mut self.post.unrecorded) {
            let channel = self.processes.get_mut(&worker).and_then(|process| process.channel.as_mut());
            if let Some(channel) = channel {
                kill_points::point("a message is taken off its channel");
                channel.was_recorded(&mut self.post.buffer);
                kill_points::point("a message was taken off its channel");
                if channel.waits() {
                    self.wait_for_room(worker);
                }
            }
        }
    }
}

/// What a worker says of itself, or why that is not taken.
fn numbers_of(letter: &RawValue) -> Result<Numbers, String> {
    let length = letter.get().len();
    if length > MOST_NUMBERS {
        return Err(format!("{length} bytes, and {MOST_NUMBERS} may be"));
    }
    serde_json::from_str(letter.get()).map_err(|error| error.to_string())
}

/// Bytes of what a worker may say of itself, kept for each.
const MOST_NUMBERS: usize = 4096;
/// Bytes taken from one channel at a time.
const PORTION: usize = 64 * 1024;
/// Portions taken from a channel at its end: more than a socket holds.
const LAST_PORTIONS: usize = 64;
