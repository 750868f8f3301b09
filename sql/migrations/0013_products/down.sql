drop table build_products;
drop table product_requests;
