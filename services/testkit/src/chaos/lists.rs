//! Lists among what clients ask for.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use super::clients::{Load, OPERATIONS};
use crate::client;
use crate::history::Action;
use crate::lists::Page;
use crate::workload::Dice;

/// Numbers of keys with one prefix: far fewer than a page takes.
const GROUP: u64 = 40;

/// Where a key is. Its neighbours have the same prefix.
pub(super) fn path(number: u64) -> String {
    format!("/objects/{}{number:02}", prefix(number / GROUP))
}

fn prefix(group: u64) -> String {
    format!("chaos/{group}/")
}

impl Load {
    /// Lists the neighbours of a key that is in use, page by page.
    pub(super) async fn list(&self, client: usize, dice: &mut Dice) {
        let (group, mut keys) = self.neighbours(dice);
        let prefix = prefix(group);
        let api = &self.apis()[usize::try_from(dice.roll(self.apis().len() as u64)).unwrap_or(0)];
        let limit = 2 + dice.roll(2 * GROUP);
        let mut after = String::new();
        while !keys.is_empty() {
            let path = format!("/objects/?prefix={prefix}&limit={limit}&start-after={after}");
            let start = self.started().elapsed();
            let answer = client::get(api, &path).await;
            let end = self.started().elapsed();
            let answer = match answer {
                Ok(answer) if answer.status == 200 => answer,
                Ok(answer) if answer.status != 503 => {
                    return self.did_not_expect(&path, Action::Read, &answer);
                }
                _ => return self.was_unavailable(),
            };
            self.succeeded(client, end);
            let page = Page { client, start, end };
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            match lists.add(page, &mut keys, &answer.json()) {
                Some(next) if next > after => after = next,
                Some(_) => return self.did_not_expect(&path, Action::Read, &answer),
                None => return,
            }
        }
    }

    /// The keys in use with the same prefix as one of them. Each is used by it.
    fn neighbours(&self, dice: &mut Dice) -> (u64, BTreeSet<String>) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(dice.roll(keys.len() as u64)).unwrap_or(0);
        let group = keys[place].0 / GROUP;
        let is_near =
            |(number, used): &&mut (u64, usize)| *number / GROUP == group && *used < OPERATIONS;
        let near = keys.iter_mut().filter(is_near).map(|(number, used)| {
            *used += 1;
            path(*number)
        });
        (group, near.collect())
    }
}
