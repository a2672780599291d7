//! Release policies in Rego: compiled once, evaluated with limits. The input's schema is documented in policies/README.md.

mod case;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use release_protocol::Obligations;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::finding::Finding;

pub use case::PolicyCase;

/// How many evaluations run at once. The engine can bound memory of the whole process only, and only under an allocator of
/// its own; what one evaluation can take within its time is what bounds it here, times this.
const AT_ONCE: usize = 4;

static EVALUATIONS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The policy of products that have none of their own: demands a known launch measurement or ID key.
pub const DEFAULT_POLICY: &str = include_str!("../../policies/release.rego");

/// Why a policy cannot be used.
#[derive(Debug, thiserror::Error)]
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
        rule: &'static str,
        /// What is wrong.
        problem: String,
    },
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

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct ReleasePolicy {
    engine: Arc<Engine>,
    digest: Arc<str>,
}

impl ReleasePolicy {
    /// The longest time that one evaluation may take.
    pub const TIME_LIMIT: Duration = Duration::from_millis(250);
    const PACKAGE: &str = "data.sealift.release";

    /// Compiles Rego source.
    pub fn compile(source: &str) -> Result<Self, PolicyError> {
        let mut engine = Engine::new();
        let package = engine
            .add_policy("policy.rego".to_owned(), source.to_owned())
            .map_err(|error| PolicyError::Compile(error.to_string()))?;
        if package != Self::PACKAGE {
            return Err(PolicyError::Package { found: vec![package] });
        }
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: Self::TIME_LIMIT,
            check_interval: NonZeroU32::MIN,
        });
        // Names that nothing defines show only when it runs. The engine itself runs, so that each evaluation's copy of it has
        // the analysis of the policy.
        decide(&mut engine, &serde_json::json!({}))?;
        Ok(Self { engine: Arc::new(engine), digest: crate::store::policy_digest(source).into() })
    }

    /// SHA-256 of its source, `sha256:…`.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Evaluates it for one request, off the runtime's threads, once it is its turn: only so many run at once.
    pub(crate) async fn evaluate_in_turn(
        self,
        input: serde_json::Value,
    ) -> Result<Result<PolicyDecision, PolicyError>, JoinError> {
        // It is never closed.
        let turn = EVALUATIONS.acquire().await.ok();
        spawn_blocking(move || {
            // A request that is given up does not stop its evaluation, which keeps its turn.
            let _turn = turn;
            self.evaluate(&input)
        })
        .await
    }

    /// Evaluates it for one request. Nothing but an `allow` that is true and an empty `deny` allows.
    pub fn evaluate(&self, input: &serde_json::Value) -> Result<PolicyDecision, PolicyError> {
        decide(&mut Engine::clone(&self.engine), input)
    }
}

fn decide(engine: &mut Engine, input: &serde_json::Value) -> Result<PolicyDecision, PolicyError> {
    let input = Value::deserialize(input).map_err(|error| PolicyError::Evaluate(error.to_string()))?;
    engine.set_input(input);
    let results = engine
        .eval_query(ReleasePolicy::PACKAGE.to_owned(), false)
        .map_err(|error| PolicyError::Evaluate(error.to_string()))?;
    let package = results.result.first().and_then(|result| result.expressions.first()).map(|found| &found.value);
    // A rule that the policy does not have, or that is undefined for this input, is absent.
    let rule = |name: &'static str| -> Result<Option<serde_json::Value>, PolicyError> {
        match package.map(|package| &package[name]) {
            None | Some(Value::Undefined) => Ok(None),
            Some(value) => serde_json::to_value(value)
                .map(Some)
                .map_err(|error| PolicyError::Output { rule: name, problem: error.to_string() }),
        }
    };
    let allow = rule("allow")? == Some(serde_json::Value::Bool(true));
    let deny: Vec<Finding> = match rule("deny")? {
        None => Vec::new(),
        Some(value) => serde_json::from_value(value)
            .map(Finding::bounded)
            .map_err(|error| PolicyError::Output { rule: "deny", problem: error.to_string() })?,
    };
    let obligations = match rule("obligations")? {
        None => Obligations::default(),
        Some(value) => serde_json::from_value(value)
            .map_err(|error| PolicyError::Output { rule: "obligations", problem: error.to_string() })?,
    };
    Ok(PolicyDecision { allow: allow && deny.is_empty(), deny, obligations })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn an_evaluation_waits_until_few_enough_run() {
        let policy = ReleasePolicy::compile("package sealift.release\nallow := true").unwrap();
        let others = EVALUATIONS.acquire_many(u32::try_from(AT_ONCE).unwrap()).await.unwrap();
        let mut evaluation = std::pin::pin!(policy.evaluate_in_turn(json!({})));
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
