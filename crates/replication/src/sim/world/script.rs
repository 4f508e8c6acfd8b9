//! Scripted actions.

use super::{SimStore, World};
use crate::sim::{Action, Event};

impl<S: SimStore> World<S> {
    /// Does this now. Returns whether it applied; what does not, does nothing.
    pub fn apply(&mut self, action: &Action) -> bool {
        let applied = self.names_nodes_of_this_world(action) && self.try_apply(action);
        self.emit(&Event::Acted { action, applied });
        applied
    }

    fn names_nodes_of_this_world(&self, action: &Action) -> bool {
        action.nodes().into_iter().all(|node| node < self.nodes.len())
    }

    fn try_apply(&mut self, action: &Action) -> bool {
        match action {
            Action::Put { node, key, value, ttl_ms } => {
                self.put_value(*node, key.as_bytes(), value.as_bytes(), *ttl_ms).is_some()
            }
            Action::Remove { node, key } => self.remove(*node, key).is_some(),
            Action::Clear { node, namespace } => self.clear(*node, namespace).is_some(),
            Action::Read { node, key } => {
                self.get(*node, key);
                self.nodes[*node].is_running()
            }
            Action::Crash { node } => self.crash(*node),
            Action::Start { node } => self.start(*node),
            Action::Pause { node } => self.pause(*node),
            Action::Resume { node } => self.resume(*node),
            Action::Disconnect { node } => self.disconnect(*node),
            Action::Connect { node } => self.connect(*node),
            always => {
                self.apply_always(always);
                true
            }
        }
    }

    fn apply_always(&mut self, action: &Action) {
        match action {
            Action::Slow { node, frame_ms } => self.slow(*node, *frame_ms),
            Action::Step { node, by_ms } => self.step_clock(*node, *by_ms),
            Action::Rate { node, ppm } => self.clock_rate(*node, *ppm),
            Action::Cut { from, to } => self.cut(*from, *to),
            Action::Mend { from, to } => self.mend(*from, *to),
            Action::Partition { left, right } => self.partition(left, right),
            Action::Heal => self.heal(),
            Action::SetLink { from, to, link } => self.set_link(*from, *to, *link),
            Action::SetLinks { link } => self.set_links(*link),
            _ => {}
        }
    }
}
