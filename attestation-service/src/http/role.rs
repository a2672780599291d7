//! Who may do what: one table from method and path to roles. What is not in it is the administrators' alone.

use axum::http::Method;

use crate::api::{API_PREFIX, Role};

/// One line of the table.
struct Rule {
    /// Whether it is about reading; otherwise it is about everything else.
    reads: bool,
    /// The path below the API's prefix, and all that is below it.
    prefix: &'static str,
    /// Who may, besides administrators.
    roles: &'static [Role],
}

const fn read(prefix: &'static str, roles: &'static [Role]) -> Rule {
    Rule { reads: true, prefix, roles }
}

const fn change(prefix: &'static str, roles: &'static [Role]) -> Rule {
    Rule { reads: false, prefix, roles }
}

const TABLE: &[Rule] = &[
    read("/products", &[Role::Publisher, Role::Auditor]),
    change("/products", &[Role::Publisher]),
    change("/references", &[Role::Publisher]),
    read("/platforms", &[Role::Publisher, Role::Auditor]),
    change("/platforms", &[Role::Publisher]),
    read("/licenses", &[Role::Licensing, Role::Auditor]),
    change("/licenses", &[Role::Licensing]),
    read("/leases", &[Role::Licensing, Role::Auditor]),
    change("/leases", &[Role::Licensing]),
    read("/audit", &[Role::Auditor]),
    read("/log", &[Role::Auditor]),
    read("/tokens", &[Role::Auditor]),
    read("/metrics", &[Role::Auditor]),
];

/// The roles that may, besides administrators.
pub(super) fn allowed(method: &Method, path: &str) -> &'static [Role] {
    let path = path.strip_prefix(API_PREFIX).unwrap_or(path);
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let is_below = |prefix| path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    TABLE.iter().find(|rule| rule.reads == reads && is_below(rule.prefix)).map_or(&[], |rule| rule.roles)
}

/// Whether a relay's administrators may do it: see what there is, end leases, and say who else may.
pub(super) fn is_for_relays(method: &Method, path: &str) -> bool {
    let path = path.strip_prefix(API_PREFIX).unwrap_or(path);
    matches!(*method, Method::GET | Method::HEAD)
        || ["/leases/", "/tokens"].iter().any(|prefix| path.starts_with(prefix))
}

/// Says which roles the request needs, where `role` is none of them.
pub(super) fn check(role: Role, method: &Method, path: &str) -> Result<(), String> {
    let roles = allowed(method, path);
    if role == Role::Admin || roles.contains(&role) {
        return Ok(());
    }
    let needed: Vec<_> = roles.iter().chain(&[Role::Admin]).map(|role| role.name()).collect();
    Err(format!("the token's role is {role}; this needs {}", needed.join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_table_does_not_name_is_for_administrators() {
        for path in ["/", "", "/tokens", "/tokens/revoke", "/productsx", "/audit", "/api/v1/tokens", "/metrics"] {
            for role in [Role::Publisher, Role::Licensing, Role::Auditor] {
                assert!(check(role, &Method::POST, path).is_err(), "{role} {path}");
            }
            assert_eq!(check(Role::Admin, &Method::POST, path), Ok(()));
        }
        let why = check(Role::Auditor, &Method::DELETE, "/products/a/references/b").unwrap_err();
        assert_eq!(why, "the token's role is auditor; this needs publisher or admin");
    }

    #[test]
    fn a_relays_administrator_sees_all_and_changes_nothing_that_was_delegated() {
        for (method, path, may) in [
            (Method::GET, "/api/v1/licenses", true),
            (Method::POST, "/api/v1/leases/x/end", true),
            (Method::POST, "/api/v1/tokens", true),
            (Method::POST, "/api/v1/licenses", false),
            (Method::POST, "/api/v1/licenses/x/renew", false),
            (Method::POST, "/api/v1/products", false),
            (Method::PUT, "/api/v1/products/x/policy", false),
            (Method::DELETE, "/api/v1/products/x/references/y", false),
            (Method::POST, "/api/v1/products/x/keys/export", false),
            (Method::POST, "/api/v1/platforms/allow", false),
            (Method::POST, "/api/v1/master-keys", false),
        ] {
            assert_eq!(is_for_relays(&method, path), may, "{method} {path}");
        }
    }

    #[test]
    fn an_auditor_changes_nothing() {
        for rule in TABLE.iter().filter(|rule| !rule.reads) {
            assert!(!rule.roles.contains(&Role::Auditor), "{}", rule.prefix);
        }
    }
}
