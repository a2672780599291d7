//! Several services in one database, each in a schema of its own, and of a role of its own.
#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::time::Duration;

use attestation_service::{DatabaseUrl, Home, Service, ServiceOptions, ServiceSettings};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use crate::rig::{database, offline};

struct Tenant {
    service: Service,
    _folder: TempDir,
}

async fn open(url: &DatabaseUrl, schema: &str) -> Tenant {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::at(folder.path().join("home"));
    home.create(&["localhost".to_owned()]).unwrap();
    let settings = ServiceSettings {
        evidence: offline(),
        database: Some(url.clone()),
        database_schema: Some(schema.parse().unwrap()),
        ..ServiceSettings::new(([127, 0, 0, 1], 0).into(), "https://localhost".parse().unwrap())
    };
    let options = ServiceOptions { settings, simulated_roots: Vec::new(), clock: Timestamp::now };
    Tenant { service: Service::open(&home, options).await.unwrap(), _folder: folder }
}

/// One value of a table, as the server has it.
async fn names(connection: &mut PgConnection, schema: &str) -> Vec<String> {
    let query = AssertSqlSafe(format!("SELECT name FROM {schema}.api_token ORDER BY name"));
    sqlx::query_scalar(query).fetch_all(connection).await.unwrap()
}

#[tokio::test]
async fn two_services_in_one_database_have_nothing_in_common_but_the_server() {
    let url = database().await.unwrap();
    let (a, b) = (open(&url, "tenant_a").await, open(&url, "tenant_b").await);
    let now = Timestamp::now();
    a.service.store().create_api_token("alpha", now).await.unwrap();
    b.service.store().create_api_token("beta", now).await.unwrap();
    let mut server = PgConnection::connect(&url.to_string()).await.unwrap();
    assert_eq!(names(&mut server, "tenant_a").await, ["alpha"]);
    assert_eq!(names(&mut server, "tenant_b").await, ["beta"]);
    let outside = "SELECT tablename::text FROM pg_tables WHERE schemaname NOT IN ('tenant_a', 'tenant_b', 'pg_catalog', 'information_schema')";
    let outside: Vec<String> = sqlx::query_scalar(outside).fetch_all(&mut server).await.unwrap();
    assert!(outside.is_empty(), "{outside:?}");

    // Who holds the one's write lock is in the way of the one, and not of the other.
    let lock = "SELECT pg_advisory_lock(hashtextextended('tenant_a', 32481091426805364))::text";
    sqlx::query(lock).execute(&mut server).await.unwrap();
    let wait = Duration::from_secs(20);
    let written = tokio::time::timeout(wait, b.service.store().adopt_api_token("more", "token", now)).await;
    written.expect("it waits for nobody").unwrap();
    let blocked = a.service.store().adopt_api_token("more", "token", now);
    tokio::pin!(blocked);
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut blocked).await.is_err(), "its lock is held");
    sqlx::query("SELECT pg_advisory_unlock_all()::text").execute(&mut server).await.unwrap();
    tokio::time::timeout(wait, blocked).await.expect("the lock is free").unwrap();
}

#[tokio::test]
async fn a_role_of_its_own_reads_no_other_tenants_schema_and_may_make_none() {
    let url = database().await.unwrap();
    let mut server = PgConnection::connect(&url.to_string()).await.unwrap();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let [a, b] = ["a", "b"].map(|name| format!("role_{name}_{unique}"));
    for (role, schema) in [(&a, "tenant_a"), (&b, "tenant_b")] {
        for statement in [format!("CREATE ROLE {role} LOGIN"), format!("CREATE SCHEMA {schema} AUTHORIZATION {role}")] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await.unwrap();
        }
    }
    let as_role = |role: &str| url.to_string().replacen("user=vendor", &format!("user={role}"), 1);
    let first = open(&as_role(&a).parse().unwrap(), "tenant_a").await;
    let second = open(&as_role(&b).parse().unwrap(), "tenant_b").await;
    let mut connection = PgConnection::connect(&as_role(&b)).await.unwrap();
    for query in ["SELECT name FROM tenant_a.api_token", "CREATE SCHEMA tenant_c", "DROP SCHEMA tenant_a CASCADE"] {
        let refused = sqlx::query(query).execute(&mut connection).await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{query}: {refused}");
    }
    drop((first, second, connection));
    for role in [a, b] {
        for statement in [format!("DROP OWNED BY {role} CASCADE"), format!("DROP ROLE {role}")] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut server).await.unwrap();
        }
    }
}
