-- Whether any product is still to be taken.
select exists (select from product_requests where state = 'wanted') as wanted
