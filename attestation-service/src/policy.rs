//! Release policies in Rego: compiled and evaluated with limits, in processes of their own. The input's schema is
//! documented in policies/README.md.

mod case;
mod engine;
mod process;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use release_protocol::Obligations;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::finding::Finding;

pub use case::PolicyCase;
pub use worker::policy_worker;

/// How many policies the service compiles or evaluates at once: this times [`ReleasePolicy::MEMORY_LIMIT`] is what they
/// take at most.
const AT_ONCE: usize = 4;

static EVALUATIONS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The policy of products that have none of their own: demands a known launch measurement or ID key.
pub const DEFAULT_POLICY: &str = include_str!("../../policies/release.rego");

/// Why a policy cannot be used.
#[derive(Debug, Deserialize, Serialize, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// The text is not Rego, or too long.
    #[error("the policy does not compile: {0}")]
    Compile(String),
    /// It stands in another package.
    #[error("the policy must be `package sealift.release`, this one declares {found:?}")]
    Package {
        /// The packages that it declares.
        found: Vec<String>,
    },
    /// It failed while it was evaluated, or took longer than [`ReleasePolicy::TIME_LIMIT`].
    #[error("the policy could not be evaluated: {0}")]
    Evaluate(String),
    /// It answered with something else than the documented output.
    #[error("the policy's `{rule}` is not of the documented form: {problem}")]
    Output {
        /// Which rule.
        rule: String,
        /// What is wrong.
        problem: String,
    },
    /// It took more than [`ReleasePolicy::MEMORY_LIMIT`], or its calls nest deeper than a stack.
    #[error("the policy was stopped: it takes more memory than the {} MiB that one may", ReleasePolicy::MEMORY_LIMIT >> 20)]
    Memory,
    /// It was in a built-in function when [`ReleasePolicy::TIME_LIMIT`] was over.
    #[error("the policy was stopped: it takes more time than the {} ms that one may", ReleasePolicy::TIME_LIMIT.as_millis())]
    Time,
    /// There is no process to evaluate it in; the policy is not to blame.
    #[serde(skip)]
    #[error("no process can be started to evaluate the policy")]
    Process(#[source] io::Error),
}

/// What a policy answered.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyDecision {
    /// Whether everything that was asked for may be released.
    pub allow: bool,
    /// Why not: at most [`Finding::COUNT_MAX`], sorted by message.
    pub deny: Vec<Finding>,
    /// Duties of the shim.
    pub obligations: Obligations,
}

/// A policy that compiles. Each evaluation happens in another process, whose memory is bounded by the kernel.
#[derive(Clone, Debug)]
pub struct ReleasePolicy {
    source: Arc<str>,
    digest: Arc<str>,
}

impl ReleasePolicy {
    /// The longest time that one evaluation may take.
    pub const TIME_LIMIT: Duration = Duration::from_millis(250);
    /// The most memory that one policy may take, compiled and while it is evaluated, in bytes.
    pub const MEMORY_LIMIT: u64 = 64 * 1024 * 1024;

    /// Compiles Rego source.
    pub fn compile(source: &str) -> Result<Self, PolicyError> {
        let policy = Self { source: source.into(), digest: crate::store::policy_digest(source).into() };
        process::compile(&policy)?;
        // Names that nothing defines show only when it runs.
        policy.evaluate(&serde_json::json!({})).map(|_| policy)
    }

    /// Compiles Rego source off the runtime's threads, once it is its turn.
    pub(crate) async fn compile_in_turn(source: String) -> Result<Result<Self, PolicyError>, JoinError> {
        in_turn(move || Self::compile(&source)).await
    }

    /// SHA-256 of its source, `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Evaluates it for one request (its input in JSON), off the runtime's threads, once it is its turn.
    pub(crate) async fn evaluate_in_turn(
        self,
        input: String,
    ) -> Result<Result<PolicyDecision, PolicyError>, JoinError> {
        in_turn(move || process::evaluate(&self, input.as_bytes())).await
    }

    /// Evaluates it for one request. Blocks until its process has answered.
    pub fn evaluate(&self, input: &serde_json::Value) -> Result<PolicyDecision, PolicyError> {
        process::evaluate(self, input.to_string().as_bytes())
    }
}

/// Runs what blocks once it is its turn: only so many run at once.
async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    // It is never closed.
    let turn = EVALUATIONS.acquire().await.ok();
    spawn_blocking(move || {
        // A request that is given up does not stop its evaluation, which keeps its turn.
        let _turn = turn;
        work()
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What this program does when an evaluation of these tests starts it; by itself it is no worker.
    #[test]
    fn policy_worker() {
        assert!(matches!(super::policy_worker(), None | Some(std::process::ExitCode::SUCCESS)));
    }

    #[test]
    fn a_signer_that_a_policy_names_twice_is_obliged_once() {
        let source =
            "package sealift.release\nobligations := {\"signers\": [\"b\", \"a\", \"b\"], \"signer_threshold\": 2}";
        let decision = ReleasePolicy::compile(source).unwrap().evaluate(&serde_json::json!({})).unwrap();
        assert_eq!(decision.obligations.signers, ["b", "a"]);
    }

    #[tokio::test]
    async fn an_evaluation_waits_until_few_enough_run() {
        let policy = ReleasePolicy::compile("package sealift.release\nallow := true").unwrap();
        let others = EVALUATIONS.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let mut evaluation = std::pin::pin!(policy.evaluate_in_turn("{}".to_owned()));
        for _ in 0..1000 {
            tokio::select! {
                biased;
                _ = &mut evaluation => panic!("it did not wait for its turn"),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(others);
        assert!(evaluation.await.unwrap().unwrap().allow);
    }
}
