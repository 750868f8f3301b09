-- A worker that this very token has enrolled with these keys.
-- $1 token id, $2 CURVE public key, $3 signing key
select name from workers where public_key = $2 and token_id = $1 and signing_key = $3 and revoked_at is null
