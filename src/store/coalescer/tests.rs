use futures_util::{FutureExt, future::join_all};
use tokio::sync::Semaphore;

use super::*;

/// The longest time that a test waits for answers.
const DEADLINE: Duration = Duration::from_secs(20);
/// The source leaves this question out of a combined read.
const LARGE: u32 = 13;
/// The source panics when it reads this question.
const PANIC: u32 = 99;

/// A source whose reads each take a permit. The answer of a read is its number.
#[derive(Debug)]
struct Numbered {
    reads: Arc<Reads>,
    error: Option<StoreError>,
}

#[derive(Debug)]
struct Reads {
    begun: Mutex<Vec<Vec<u32>>>,
    permits: Semaphore,
    /// Each read in progress has a copy, until it ends or is cancelled.
    running: Arc<()>,
}

#[async_trait]
impl Source for Numbered {
    type Group = &'static str;
    type Question = u32;
    type Answer = usize;

    async fn read(&self, group: &&'static str, questions: &[u32]) -> Result<HashMap<u32, usize>, StoreError> {
        let number = {
            let mut begun = self.reads.begun.lock();
            begun.push(questions.to_vec());
            begun.len()
        };
        let _running = self.reads.running.clone();
        if *group == "hangs" && number == 1 {
            std::future::pending::<()>().await;
        }
        self.reads.permits.acquire().await.expect("open").forget();
        assert!(!questions.contains(&PANIC), "a panic that the test caused");
        match &self.error {
            Some(error) if questions.contains(&1) => Err(error.clone()),
            _ => {
                let read = questions.iter().filter(|question| **question != LARGE || questions.len() == 1);
                Ok(read.map(|question| (*question, number)).collect())
            }
        }
    }
}

type Asking<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(usize, bool), StoreError>> + 'a>>;

struct Asker {
    coalescer: Coalescer<Numbered>,
    reads: Arc<Reads>,
}

impl Asker {
    fn new(error: Option<StoreError>) -> Self {
        let (begun, permits, running) = (Mutex::default(), Semaphore::new(0), Arc::default());
        let reads = Arc::new(Reads { begun, permits, running });
        Self { coalescer: Coalescer::new(Numbered { reads: reads.clone(), error }), reads }
    }

    /// Asks now. The answer is the number of the read, and whether this caller was the first with its question.
    fn ask(&self, group: &'static str, question: u32) -> Asking<'_> {
        let mut asking: Asking<'_> = Box::pin(async move {
            let answered = self.coalescer.ask(&group, &question).await?;
            Ok((answered.answer, answered.is_own))
        });
        assert!(asking.as_mut().now_or_never().is_none());
        asking
    }

    fn begun(&self) -> Vec<Vec<u32>> {
        self.reads.begun.lock().clone()
    }

    async fn until(&self, reached: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !reached(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(DEADLINE, waiting).await.expect("reached in time");
    }

    /// Waits until exactly this many reads have begun.
    async fn until_begun(&self, number: usize) {
        self.until(|asker| asker.begun().len() == number).await;
    }

    async fn until_idle(&self) {
        let is_running = |asker: &Self| Arc::strong_count(&asker.reads.running) > 1;
        self.until(|asker| asker.coalescer.0.lanes.lock().is_empty() && !is_running(asker)).await;
    }
}

async fn answers(asking: Vec<Asking<'_>>) -> Vec<Result<(usize, bool), StoreError>> {
    timeout(DEADLINE, join_all(asking)).await.expect("answered in time")
}

async fn good(asking: Vec<Asking<'_>>) -> Vec<(usize, bool)> {
    answers(asking).await.into_iter().map(|answer| answer.expect("an answer")).collect()
}

#[tokio::test]
async fn questions_of_one_moment_are_one_read_and_equal_questions_share_its_answer() {
    let asker = Asker::new(None);
    let asking = [1, 2, 1, 3].map(|question| asker.ask("group", question)).into();
    asker.reads.permits.add_permits(1);
    assert_eq!(good(asking).await, [(1, true), (1, true), (1, false), (1, true)]);
    assert_eq!(asker.begun(), [vec![1, 2, 3]]);
    asker.until_idle().await;
}

#[tokio::test]
async fn a_question_during_a_read_is_answered_by_a_later_read() {
    let asker = Asker::new(None);
    let first = asker.ask("group", 1);
    asker.until_begun(1).await;
    let during = [1, 2, 2].map(|question| asker.ask("group", question));
    asker.reads.permits.add_permits(2);
    assert_eq!(
        good([first].into_iter().chain(during).collect()).await,
        [(1, true), (2, true), (2, true), (2, false)]
    );
    assert_eq!(asker.begun(), [vec![1], vec![1, 2]]);
    let after = asker.ask("group", 1);
    asker.reads.permits.add_permits(1);
    assert_eq!(good(vec![after]).await, [(3, true)]);
    asker.until_idle().await;
}

#[tokio::test]
async fn groups_are_read_separately_and_do_not_wait_for_each_other() {
    let asker = Asker::new(None);
    let hangs = asker.ask("hangs", 1);
    asker.until_begun(1).await;
    let other = asker.ask("group", 1);
    asker.reads.permits.add_permits(1);
    assert_eq!(good(vec![other]).await, [(2, true)]);
    drop(hangs);
    asker.until_idle().await;
}

#[tokio::test]
async fn a_caller_that_is_cancelled_does_not_interrupt_the_read_for_others() {
    let asker = Asker::new(None);
    let mut asking: Vec<_> = [1, 1, 2].map(|question| asker.ask("group", question)).into();
    asker.until_begun(1).await;
    drop(asking.remove(0));
    asker.reads.permits.add_permits(1);
    assert_eq!(good(asking).await, [(1, false), (1, true)]);
    assert_eq!(asker.begun().len(), 1, "nothing is read again");
    asker.until_idle().await;
}

#[tokio::test]
async fn nothing_remains_after_all_callers_are_cancelled() {
    let asker = Asker::new(None);
    drop(asker.ask("group", 1));
    asker.until_idle().await;
    assert!(asker.begun().is_empty(), "a question without callers is not read");
    let (reading, waiting) = (asker.ask("group", 1), asker.ask("other", 2));
    asker.until_begun(2).await;
    let next = asker.ask("group", 3);
    drop((reading, waiting, next));
    asker.until_idle().await;
    assert_eq!(asker.begun().len(), 2);
}

#[tokio::test]
async fn a_read_that_hangs_does_not_block_the_next_read() {
    let asker = Asker::new(None);
    let hangs = asker.ask("hangs", 1);
    asker.until_begun(1).await;
    let next = asker.ask("hangs", 2);
    asker.reads.permits.add_permits(1);
    assert_eq!(good(vec![next]).await, [(2, true)]);
    drop(hangs);
    asker.until_idle().await;
}

/// A steady flow of new questions delays no question by more than the reads before it.
#[tokio::test]
async fn questions_are_read_in_their_order_and_at_most_256_at_once() {
    let asker = Asker::new(None);
    let asking: Vec<_> = (1000..1600).map(|question| asker.ask("group", question)).collect();
    asker.until_begun(1).await;
    let again = asker.ask("group", 1000);
    let waiting = asker.ask("group", 1599);
    asker.reads.permits.add_permits(3);
    let numbers: Vec<_> = good(asking).await.into_iter().map(|(number, _)| number).collect();
    assert_eq!(asker.begun().iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 89]);
    assert!(numbers.is_sorted());
    assert_eq!(good(vec![again, waiting]).await, [(3, true), (3, false)]);
    asker.until_idle().await;
}

#[tokio::test]
async fn a_temporary_error_is_returned_to_every_caller_of_the_read() {
    let asker = Asker::new(Some(StoreError::Unavailable("away".to_owned())));
    let asking = [1, 2, 1].map(|question| asker.ask("group", question)).into();
    asker.reads.permits.add_permits(1);
    assert!(answers(asking).await.iter().all(Result::is_err));
    assert_eq!(asker.begun().len(), 1);
    asker.until_idle().await;
}

#[tokio::test]
async fn a_final_error_concerns_only_the_callers_of_its_question() {
    let asker = Asker::new(Some(StoreError::Unusable("damaged".to_owned())));
    let asking = [1, 2, 1, 3].map(|question| asker.ask("group", question)).into();
    asker.reads.permits.add_permits(4);
    let read = answers(asking).await;
    assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true, false, true]);
    assert!(matches!(read[0], Err(StoreError::Unusable(_))));
    let mut begun = asker.begun();
    begun.sort();
    assert_eq!(begun, [vec![1], vec![1, 2, 3], vec![2], vec![3]]);
    asker.until_idle().await;
}

#[tokio::test]
async fn a_question_that_a_read_leaves_out_is_read_alone_and_once() {
    let asker = Asker::new(None);
    let asking = [1, LARGE, LARGE, 2].map(|question| asker.ask("group", question)).into();
    asker.reads.permits.add_permits(2);
    assert_eq!(good(asking).await, [(1, true), (2, true), (2, false), (1, true)]);
    assert_eq!(asker.begun(), [vec![1, LARGE, 2], vec![LARGE]]);
    asker.until_idle().await;
}

#[tokio::test]
async fn a_panic_is_an_error_for_the_callers_of_the_read_and_ends_no_lane() {
    let asker = Asker::new(None);
    let panics = asker.ask("group", PANIC);
    asker.until_begun(1).await;
    let next = asker.ask("group", 2);
    asker.reads.permits.add_permits(2);
    assert!(matches!(answers(vec![panics]).await[..], [Err(StoreError::Unavailable(_))]));
    assert_eq!(good(vec![next]).await, [(2, true)]);
    asker.until_idle().await;
}
