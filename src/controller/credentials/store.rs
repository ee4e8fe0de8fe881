//! Secrets as they were read last, and when one is read again.
//!
//! What was read is used for a minute. Whoever has a reason to believe that it has changed may read it again at once, though
//! not oftener than every ten seconds. Readers of one Secret wait for one and the same call. While the API server is away,
//! the last good copy goes on being used, because polls must not stop.

use super::{kept::Kept, material::Material, read::ReadFailure};
use crate::metrics::Metrics;
use futures::future::BoxFuture;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore},
    time::{Instant, timeout},
};

/// How long a copy is used before it is read again.
const KEPT_FOR: Duration = Duration::from_mins(1);
/// Least time between two readings of one Secret for a special reason: a host that refuses it, a Secret that cannot be used.
const PRESSED_EVERY: Duration = Duration::from_secs(10);
/// Deadline of a call where nothing can be done without its answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The same where the last copy can be used instead: a poll waits that long.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);
/// After a call that failed, nobody who has a copy tries again for this long.
const AWAY_FOR: Duration = Duration::from_secs(10);
/// Calls that are under way at once; a thousand servers with a Secret each are through within seconds.
const CALLS_AT_ONCE: usize = 16;
/// What all copies together may take: some 20,000 tokens, or a hundred bundles of every public authority.
const BYTES_MAX: usize = 32 << 20;

/// Namespace and name.
pub type Key = (String, String);

type Fetch = Box<dyn Fn(Key) -> BoxFuture<'static, Result<Material, ReadFailure>> + Send + Sync>;

/// What the API server says of a Secret.
pub type Word = Result<Arc<Material>, Refusal>;

/// Why it does not hand one out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Missing,
    Forbidden,
}

/// What is known of a Secret.
#[derive(Clone, Debug)]
pub struct Known {
    pub word: Word,
    /// Whether it was read for this very question.
    pub fresh: bool,
}

/// Why it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Usual,
    /// There is a reason to believe that it has changed.
    Pressing,
}

/// One Secret.
#[derive(Default)]
struct Slot {
    word: Option<Word>,
    /// When it is read again without a special reason.
    due: Option<Instant>,
    /// When it was last read for a special reason.
    pressed: Option<Instant>,
    /// The last reading was forbidden, which is not believed at once.
    doubted: bool,
    /// The last call failed, and while there is a copy the next one is not made before this.
    failed_until: Option<Instant>,
}

/// The place of one Secret.
type Place = AsyncMutex<Slot>;

/// What calls that failed say of the API server. One Secret that cannot be read, because it cannot be decrypted for
/// example, says nothing of the others: they must still be seen to change.
#[derive(Default)]
struct Away {
    /// The Secret of the last call, if that failed.
    failed: Option<Key>,
    /// Until then it counts as away for those who have a copy.
    until: Option<Instant>,
}

/// All Secrets that are in use.
pub struct Store {
    fetch: Fetch,
    metrics: Arc<Metrics>,
    places: Mutex<Kept<Place>>,
    calls: Semaphore,
    away: Mutex<Away>,
}

impl Store {
    pub fn new(
        fetch: impl Fn(Key) -> BoxFuture<'static, Result<Material, ReadFailure>> + Send + Sync + 'static,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            fetch: Box::new(fetch),
            metrics,
            places: Mutex::new(Kept::new(BYTES_MAX, Instant::now())),
            calls: Semaphore::new(CALLS_AT_ONCE),
            away: Mutex::default(),
        }
    }

    /// What is known of a Secret, read now if it is time; `None`: nothing is, and the API server cannot be asked.
    pub async fn read(&self, key: &Key, need: Need) -> Option<Known> {
        let place = self.places().get(key, Instant::now());
        // Others who wait for a call without an answer must not make one after the other wait for their own.
        let mut slot = timeout(CALL_TIMEOUT, place.lock()).await.ok()?;
        let now = Instant::now();
        let is_due = match need {
            Need::Usual => slot.due.is_none_or(|due| due <= now),
            Need::Pressing => slot.pressed.is_none_or(|last| last + PRESSED_EVERY <= now),
        };
        let known = slot.word.is_some();
        let is_paused = known && slot.failed_until.is_some_and(|until| now < until);
        let is_wanted = !known || (is_due && !is_paused);
        let answer = if is_wanted { self.call(key, known).await } else { Err(ReadFailure::Unavailable) };
        if is_wanted {
            let failed = matches!(answer, Err(ReadFailure::Unavailable));
            slot.failed_until = failed.then(|| Instant::now() + AWAY_FOR);
        }
        let fresh = slot.take(answer, need, Instant::now());
        let word = slot.word.clone()?;
        drop(slot);
        if fresh {
            let bytes = word.as_ref().map_or(0, |material| material.bytes);
            self.places().put(key, &place, bytes, Instant::now());
        }
        Some(Known { word, fresh })
    }

    /// Asks the API server, unless it is away and the caller can do without.
    async fn call(&self, key: &Key, known: bool) -> Result<Material, ReadFailure> {
        let given_up = || known && self.is_away();
        let limit = if known { REFRESH_TIMEOUT } else { CALL_TIMEOUT };
        // That many others are asked for says nothing of the API server.
        let Ok(_permit) = timeout(limit, self.calls.acquire()).await else {
            return Err(ReadFailure::Unavailable);
        };
        // Another call may have failed while this one waited for its turn.
        if given_up() {
            return Err(ReadFailure::Unavailable);
        }
        let answer = timeout(limit, (self.fetch)(key.clone())).await.unwrap_or(Err(ReadFailure::Unavailable));
        self.metrics.secret_read(match &answer {
            Ok(_) => "read",
            Err(ReadFailure::Missing) => "not_found",
            Err(ReadFailure::Forbidden) => "forbidden",
            Err(ReadFailure::Unavailable) => "unavailable",
        });
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(answer, Err(ReadFailure::Unavailable)) {
            *away = Away::default();
        } else if away.failed.as_ref().is_some_and(|failed| failed != key) {
            away.until = Some(Instant::now() + AWAY_FOR);
        } else {
            away.failed = Some(key.clone());
        }
        drop(away);
        answer
    }

    fn is_away(&self) -> bool {
        let until = self.away.lock().unwrap_or_else(PoisonError::into_inner).until;
        until.is_some_and(|until| Instant::now() < until)
    }

    fn places(&self) -> MutexGuard<'_, Kept<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Takes over what the API server says; whether that is known now.
    fn take(&mut self, answer: Result<Material, ReadFailure>, need: Need, now: Instant) -> bool {
        let word = match answer {
            Err(ReadFailure::Unavailable) => return false,
            Ok(material) => match &self.word {
                // The same copy stays, so that whoever used it sees that nothing changed.
                Some(Ok(last)) if last.is_same(&material) => Ok(Arc::clone(last)),
                _ => Ok(Arc::new(material)),
            },
            Err(ReadFailure::Missing) => Err(Refusal::Missing),
            Err(ReadFailure::Forbidden) => Err(Refusal::Forbidden),
        };
        if need == Need::Pressing {
            self.pressed = Some(now);
        }
        // An API server that has just started forbids what it allows a second later.
        let doubt =
            matches!(word, Err(Refusal::Forbidden)) && matches!(self.word, Some(Ok(_))) && !self.doubted;
        self.doubted = doubt;
        self.due = Some(now + if doubt { PRESSED_EVERY } else { KEPT_FOR });
        if !doubt {
            self.word = Some(word);
        }
        !doubt
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
