//! What is true of many routes at once and follows from tables that the service itself goes by: roles, problems, parameters.

use axum::http::Method;
use release_protocol::{KBS_PREFIX, SESSION_COOKIE};
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;

use crate::api::{API_PREFIX, Role};
use crate::http::problem::Kind;
use crate::http::role;

/// What the parts of paths are.
const PARAMETERS: [(&str, &str, &str); 7] = [
    ("product", "string", "A product's name."),
    ("reference", "string", "A reference value's id."),
    ("key", "string", "An image key's id."),
    ("license", "string", "A licence's id."),
    ("lease", "string", "A lease's id."),
    ("entry", "integer", "An audit entry's number, from 1."),
    ("path", "string", "The rest of the path, with its slashes."),
];

/// The document with everything in it. Members are in alphabetical order, however the JSON library keeps them.
pub(super) fn text(registered: &OpenApi) -> String {
    let mut document = serde_json::to_value(registered).unwrap_or_default();
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (path, mut item) in std::mem::take(paths) {
            for (method, operation) in item.as_object_mut().into_iter().flatten() {
                if let (Ok(method), Some(operation)) =
                    (method.to_uppercase().parse::<Method>(), operation.as_object_mut())
                {
                    finish(&path, &method, operation);
                }
            }
            // A parameter over several segments is written in another way where it is routed.
            paths.insert(path.replace("{*", "{"), item);
        }
    }
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("securitySchemes".to_owned(), security_schemes());
    }
    unlink(&mut document);
    let sorted = serde_json_canonicalizer::to_vec(&document).unwrap_or_default();
    let sorted: Value = serde_json::from_slice(&sorted).unwrap_or_default();
    format!("{sorted:#}\n")
}

fn finish(path: &str, method: &Method, operation: &mut Map<String, Value>) {
    let names: Vec<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
    let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
    if let Some(parameters) = parameters.as_array_mut() {
        for name in &names {
            let name = name.trim_start_matches('*');
            let known = PARAMETERS.iter().find(|(known, ..)| *known == name);
            let (_, kind, description) = known.copied().unwrap_or((name, "string", ""));
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "description": description, "schema": {"type": kind},
            }));
        }
        if parameters.is_empty() {
            operation.remove("parameters");
        }
    }
    operation.insert("security".to_owned(), security(path, method));
    let kinds = problems(path, method, operation);
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    for (status, response) in responses.iter_mut() {
        response["description"] = if status == "204" { "Done." } else { "The answer." }.into();
    }
    for kind in kinds {
        let response = responses.entry(kind.status.as_str()).or_insert_with(|| {
            json!({
                "description": "", "content":
                {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            })
        });
        if kind.status == Kind::TOO_MANY.status || kind.status == Kind::UNAVAILABLE.status {
            response["headers"] = json!({"Retry-After": {
                "description": "When to come back, in seconds.", "schema": {"type": "integer", "minimum": 1},
            }});
        }
        let said = format!("`{}`: {}.", kind.code, kind.title);
        let before = response["description"].as_str().unwrap_or_default();
        response["description"] = format!("{before} {said}").trim_start().into();
    }
}

/// The problems that a request can end in.
fn problems(path: &str, method: &Method, operation: &Map<String, Value>) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let step = path.strip_prefix(KBS_PREFIX);
    let needs_role = needs_role(path);
    let needs_session = step.is_some_and(needs_session);
    let (has_body, has_parameters) = (operation.contains_key("requestBody"), operation.contains_key("parameters"));
    let names_a_thing =
        path.contains('{') || (needs_role && has_body) || step.is_some_and(|step| step.starts_with("/lease/"));
    let mut add = |holds: bool, kind| kinds.extend(holds.then_some(kind));
    add(has_body || has_parameters, Kind::MALFORMED);
    add(needs_role || needs_session || step == Some("/attest"), Kind::NOT_ATTESTED);
    add(needs_role || (needs_session && path.contains('{')) || step == Some("/attest"), Kind::DENIED);
    add(step == Some("/attest"), Kind::EVIDENCE_REJECTED);
    add(names_a_thing, Kind::UNKNOWN);
    add(needs_role && method != Method::GET, Kind::CONFLICT);
    add(step == Some("/attest"), Kind::SEATS_EXHAUSTED);
    add(has_body, Kind::TOO_LARGE);
    add(step.is_some(), Kind::TOO_MANY);
    add(true, Kind::INTERNAL);
    add(true, Kind::UNAVAILABLE);
    kinds
}

pub(super) fn needs_role(path: &str) -> bool {
    path.starts_with(API_PREFIX) || path == "/metrics"
}

fn needs_session(step: &str) -> bool {
    step.starts_with("/resource/") || step.starts_with("/lease/") || step == "/delegation"
}

/// One requirement for each role that may: any of them will do.
fn security(path: &str, method: &Method) -> Value {
    if needs_role(path) {
        let roles = [Role::Admin].into_iter().chain(role::allowed(method, path).iter().copied());
        return roles.map(|role| json!({"token": [role.name()]})).collect();
    }
    match path.strip_prefix(KBS_PREFIX) {
        Some(step) if needs_session(step) => json!([{"session": []}, {"sessionCookie": []}]),
        _ => json!([]),
    }
}

fn security_schemes() -> Value {
    json!({
        "token": {
            "type": "http", "scheme": "bearer",
            "description": "An API token (`sealift token create`). Each requirement names the role that the token has.",
        },
        "session": {
            "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "The token that an attestation was answered with.",
        },
        "sessionCookie": {
            "type": "apiKey", "in": "cookie", "name": SESSION_COOKIE,
            "description": "The same, as stock clients send it.",
        },
    })
}

/// Takes the links of our documentation comments out of descriptions, which lead nowhere here.
fn unlink(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(unlink),
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" || name == "summary" => *text = without_links(text),
                    other => unlink(other),
                }
            }
        }
        _ => {}
    }
}

fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, after)) = after.split_once("`]") else { break };
        let name = name.trim_start_matches("Self::").trim_start_matches("Problem::");
        plain.extend([before, "`", name, "`"]);
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    plain.push_str(rest);
    plain
}
