/* A JSON parser (RFC 8259 without floating point) that prints each document in a canonical form, or where it is wrong;
   recursion, switches, byte loads, jump tables. */
#include "runtime.h"

static const char *const DOCUMENTS[] = {
    "null", " [ ] ", "{}", "[1,2,-3,400000]", "{\"a\":{\"b\":[true,false,null]},\"c\":\"d\\n\\u0041\\\"\"}",
    "[[[[[[[[[[1]]]]]]]]]]", "{\"k\":[{\"x\":1},{\"y\":[2,{\"z\":-0}]}]}", "\"\\t\\b\\f\\r\\\\\\/\"", "[1,]", "{\"a\" 1}", "tru",
    "\"open", "[1 2]", "{\"a\":1,}", "-", "01", "\"\\q\"", "", "[", "{\"numbers\":[0,1,10,100,1000,10000,100000,1000000]}",
    "  {\n  \"deep\" : { \"deeper\" : { \"deepest\" : [ { } , [ ] , \"\" , 0 ] } } }  ", "[1] x",
};

static const char *at;
static int depth, nodes, sum;

static int value(void);

static void space(void)
{
    while (*at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')
        at++;
}

static int word(const char *text)
{
    for (const char *p = text; *p; p++, at++)
        if (*at != *p)
            return 0;
    put_text(text);
    return 1;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

static int escape(void)
{
    int code = 0;
    switch (*at++) {
    case '"': put_byte('"'); return 1;
    case '\\': put_byte('\\'); return 1;
    case '/': put_byte('/'); return 1;
    case 'b': put_byte('b'); return 1;
    case 'f': put_byte('f'); return 1;
    case 'n': put_byte('n'); return 1;
    case 'r': put_byte('r'); return 1;
    case 't': put_byte('t'); return 1;
    case 'u':
        for (int i = 0; i < 4; i++, at++) {
            int digit = hex_digit(*at);
            if (digit < 0)
                return 0;
            code = code * 16 + digit;
        }
        put_byte('U');
        put_number(code);
        return 1;
    default: at--; return 0;
    }
}

static int string(void)
{
    put_byte('\'');
    for (at++; *at != '"'; ) {
        if ((u8)*at < 32)
            return 0;
        if (*at == '\\') {
            at++;
            if (!escape())
                return 0;
        } else
            put_byte((u8)*at++);
    }
    at++;
    put_byte('\'');
    return 1;
}

static int number(void)
{
    int negative = *at == '-', result = 0;
    at += negative;
    if (*at < '0' || *at > '9' || (*at == '0' && at[1] >= '0' && at[1] <= '9'))
        return 0;
    while (*at >= '0' && *at <= '9')
        result = result * 10 + (*at++ - '0');
    sum += negative ? -result : result;
    put_number(negative ? -result : result);
    return 1;
}

static int members(char open, char close, int keyed)
{
    put_byte((u8)open);
    at++;
    space();
    if (*at == close) {
        at++;
        put_byte((u8)close);
        return 1;
    }
    for (;;) {
        space();
        if (keyed) {
            if (*at != '"' || !string())
                return 0;
            space();
            if (*at++ != ':')
                return at--, 0;
            put_byte('=');
        }
        if (!value())
            return 0;
        space();
        if (*at == close)
            break;
        if (*at != ',')
            return 0;
        at++;
        put_byte(';');
    }
    at++;
    put_byte((u8)close);
    return 1;
}

static int value(void)
{
    int good;
    nodes++;
    space();
    if (++depth > 20)
        return 0;
    switch (*at) {
    case '{': good = members('{', '}', 1); break;
    case '[': good = members('[', ']', 0); break;
    case '"': good = string(); break;
    case 't': good = word("true"); break;
    case 'f': good = word("false"); break;
    case 'n': good = word("null"); break;
    default: good = number();
    }
    depth--;
    return good;
}

void program(void)
{
    for (u32 i = 0; i < sizeof DOCUMENTS / sizeof *DOCUMENTS; i++) {
        at = DOCUMENTS[i];
        depth = 0;
        int good = value();
        space();
        if (good && !*at)
            put_text(" ok\n");
        else {
            put_text(" wrong at ");
            put_number((int)(at - DOCUMENTS[i]));
            put_byte('\n');
        }
    }
    put_number(nodes);
    put_byte(' ');
    put_number(sum);
    put_byte('\n');
}
