-- Your first asset: this file is the table silver.ingredients. Change it and type `rat run` again.
select
    name,
    grams
from (
    values
        ('aubergine', 400),
        ('courgette', 350),
        ('tomato', 500),
        ('red pepper', 200)
) as ingredients (name, grams)
