//! The Rego engine: one compiled policy, and its answers in the documented form. Only the process that
//! [`super::worker`] describes runs it.

use std::num::NonZeroU32;
use std::time::Instant;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine, Value};
use release_protocol::Obligations;
use serde::de::DeserializeOwned;

use super::{PolicyDecision, PolicyError, ReleasePolicy};
use crate::finding::Finding;

const PACKAGE: &str = "data.sealift.release";

/// A policy, ready to be evaluated.
#[derive(Debug)]
pub(super) struct CompiledPolicy(Engine);

impl CompiledPolicy {
    pub(super) fn compile(source: &str) -> Result<Self, PolicyError> {
        let mut engine = Engine::new();
        let package = engine
            .add_policy("policy.rego".to_owned(), source.to_owned())
            .map_err(|error| PolicyError::Compile(error.to_string()))?;
        if package != PACKAGE {
            return Err(PolicyError::Package { found: vec![package] });
        }
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit: ReleasePolicy::TIME_LIMIT,
            check_interval: NonZeroU32::MIN,
        });
        // The analysis of the policy comes with the first evaluation, and each evaluation's copy then has it.
        engine.set_input(Value::new_object());
        let _failures_come_again = engine.eval_query(PACKAGE.to_owned(), false);
        Ok(Self(engine))
    }

    /// Evaluates it for an input in JSON. Nothing but an `allow` that is true and an empty `deny` allows.
    pub(super) fn evaluate(&self, input: &[u8]) -> Result<PolicyDecision, PolicyError> {
        let mut engine = self.0.clone();
        engine.set_input(serde_json::from_slice(input).map_err(|error| PolicyError::Evaluate(error.to_string()))?);
        let started = Instant::now();
        let results =
            engine.eval_query(PACKAGE.to_owned(), false).map_err(|error| PolicyError::Evaluate(error.to_string()))?;
        // The engine does not look at the clock within a built-in function, nor after the last one.
        if started.elapsed() > ReleasePolicy::TIME_LIMIT {
            return Err(PolicyError::Time);
        }
        let package = results.result.first().and_then(|result| result.expressions.first()).map(|found| &found.value);
        let allow: Option<serde_json::Value> = rule(package, "allow")?;
        let deny = rule(package, "deny")?.map(Finding::bounded).unwrap_or_default();
        let obligations: Option<Obligations> = rule(package, "obligations")?;
        let mut obligations = obligations.unwrap_or_default();
        obligations.keep_distinct_signers();
        let allow = allow == Some(serde_json::Value::Bool(true)) && deny.is_empty();
        Ok(PolicyDecision { allow, deny, obligations })
    }
}

/// What a rule gave. One that the policy does not have, or that is undefined for this input, is absent.
fn rule<T: DeserializeOwned>(package: Option<&Value>, name: &str) -> Result<Option<T>, PolicyError> {
    match package.map(|package| &package[name]) {
        None | Some(Value::Undefined) => Ok(None),
        Some(value) => serde_json::to_value(value)
            .and_then(serde_json::from_value)
            .map(Some)
            .map_err(|error| PolicyError::Output { rule: name.to_owned(), problem: error.to_string() }),
    }
}
