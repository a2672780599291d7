//! API tokens: made, listed, revoked. Which role may do what stands in `http/role.rs`.

use crate::api::{CreatedToken, NewToken, TokenRevocation, TokenStatus};
use crate::service::{Service, ServiceError};

/// The longest name of a token, in bytes.
const NAME_MAX: usize = 64;
/// The longest reason, in bytes.
const REASON_MAX: usize = 512;

impl Service {
    /// Makes a token.
    pub(crate) async fn create_token(&self, new: NewToken) -> Result<CreatedToken, ServiceError> {
        let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if new.name.is_empty() || new.name.len() > NAME_MAX || !new.name.bytes().all(is_name) {
            let why = format!("a token's name has 1 to {NAME_MAX} of a-z, 0-9, `.`, `_`, `-`");
            return Err(ServiceError::BadRequest(why));
        }
        let now = self.now();
        if new.expires_at.is_some_and(|at| at <= now) {
            return Err(ServiceError::BadRequest("the token would have expired already".to_owned()));
        }
        let token = self.store.issue_api_token(&new, now).await?;
        Ok(CreatedToken { name: new.name, role: new.role, expires_at: new.expires_at, token })
    }

    /// Ends a token.
    pub(crate) async fn revoke_token(&self, revocation: &TokenRevocation) -> Result<TokenStatus, ServiceError> {
        let TokenRevocation { name, reason } = revocation;
        if reason.trim().is_empty() || reason.len() > REASON_MAX {
            let why = format!("a token is revoked for a reason, of {REASON_MAX} bytes at most");
            return Err(ServiceError::BadRequest(why));
        }
        Ok(self.store.revoke_api_token(name, reason, self.now()).await?)
    }
}
