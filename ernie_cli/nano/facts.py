"""The tables that nano learns by heart: small, common, the same in both languages.

Only data. How a row becomes a question is in `tasks.py`.
"""

CAPITALS: tuple[tuple[str, str, str, str], ...] = (
    # country, capital, 国家, 首都
    ("France", "Paris", "法国", "巴黎"),
    ("Japan", "Tokyo", "日本", "东京"),
    ("China", "Beijing", "中国", "北京"),
    ("Italy", "Rome", "意大利", "罗马"),
    ("Spain", "Madrid", "西班牙", "马德里"),
    ("Germany", "Berlin", "德国", "柏林"),
    ("Russia", "Moscow", "俄罗斯", "莫斯科"),
    ("Egypt", "Cairo", "埃及", "开罗"),
    ("Greece", "Athens", "希腊", "雅典"),
    ("Cuba", "Havana", "古巴", "哈瓦那"),
    ("Peru", "Lima", "秘鲁", "利马"),
    ("Thailand", "Bangkok", "泰国", "曼谷"),
    ("Vietnam", "Hanoi", "越南", "河内"),
    ("Korea", "Seoul", "韩国", "首尔"),
    ("India", "New Delhi", "印度", "新德里"),
    ("Iran", "Tehran", "伊朗", "德黑兰"),
    ("Kenya", "Nairobi", "肯尼亚", "内罗毕"),
    ("Norway", "Oslo", "挪威", "奥斯陆"),
    ("Portugal", "Lisbon", "葡萄牙", "里斯本"),
    ("Canada", "Ottawa", "加拿大", "渥太华"),
)

OPPOSITES: tuple[tuple[str, str, str, str], ...] = (
    ("big", "small", "大", "小"),
    ("hot", "cold", "热", "冷"),
    ("high", "low", "高", "低"),
    ("long", "short", "长", "短"),
    ("fast", "slow", "快", "慢"),
    ("new", "old", "新", "旧"),
    ("black", "white", "黑", "白"),
    ("open", "closed", "开", "关"),
    ("left", "right", "左", "右"),
    ("up", "down", "上", "下"),
    ("early", "late", "早", "晚"),
    ("light", "dark", "明", "暗"),
    ("near", "far", "近", "远"),
    ("wet", "dry", "湿", "干"),
    ("rich", "poor", "富", "穷"),
    ("strong", "weak", "强", "弱"),
)

COLOURS: tuple[tuple[str, str, str, str], ...] = (
    # thing, colour, 东西, 颜色
    ("grass", "green", "草", "绿色"),
    ("snow", "white", "雪", "白色"),
    ("the sky", "blue", "天空", "蓝色"),
    ("the sea", "blue", "大海", "蓝色"),
    ("coal", "black", "煤", "黑色"),
    ("a banana", "yellow", "香蕉", "黄色"),
    ("a lemon", "yellow", "柠檬", "黄色"),
    ("blood", "red", "血", "红色"),
    ("a tomato", "red", "番茄", "红色"),
    ("milk", "white", "牛奶", "白色"),
    ("a leaf", "green", "树叶", "绿色"),
    ("a crow", "black", "乌鸦", "黑色"),
    ("a carrot", "orange", "胡萝卜", "橙色"),
    ("chocolate", "brown", "巧克力", "棕色"),
)

WORDS: tuple[tuple[str, str], ...] = (
    ("apple", "苹果"),
    ("moon", "月亮"),
    ("sun", "太阳"),
    ("river", "河流"),
    ("water", "水"),
    ("fire", "火"),
    ("tree", "树"),
    ("flower", "花"),
    ("dog", "狗"),
    ("cat", "猫"),
    ("bird", "鸟"),
    ("fish", "鱼"),
    ("horse", "马"),
    ("tiger", "老虎"),
    ("book", "书"),
    ("pen", "笔"),
    ("door", "门"),
    ("house", "房子"),
    ("car", "汽车"),
    ("boat", "船"),
    ("road", "路"),
    ("city", "城市"),
    ("school", "学校"),
    ("friend", "朋友"),
    ("mother", "母亲"),
    ("father", "父亲"),
    ("hand", "手"),
    ("heart", "心"),
    ("tea", "茶"),
    ("rice", "米饭"),
    ("bread", "面包"),
    ("music", "音乐"),
    ("mountain", "山"),
    ("rain", "雨"),
    ("wind", "风"),
    ("star", "星星"),
    ("table", "桌子"),
    ("chair", "椅子"),
    ("red", "红色"),
    ("blue", "蓝色"),
)

DAYS: tuple[tuple[str, str], ...] = (
    ("Monday", "星期一"),
    ("Tuesday", "星期二"),
    ("Wednesday", "星期三"),
    ("Thursday", "星期四"),
    ("Friday", "星期五"),
    ("Saturday", "星期六"),
    ("Sunday", "星期日"),
)

MONTHS: tuple[tuple[str, str], ...] = (
    ("January", "一月"),
    ("February", "二月"),
    ("March", "三月"),
    ("April", "四月"),
    ("May", "五月"),
    ("June", "六月"),
    ("July", "七月"),
    ("August", "八月"),
    ("September", "九月"),
    ("October", "十月"),
    ("November", "十一月"),
    ("December", "十二月"),
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS = "天地人山水火木金土日月星风雨花草鸟鱼马牛"

# What a first user types before any task. Trained, but in no score: there is nothing to generalise.
SMALL_TALK: dict[str, tuple[tuple[str, str], ...]] = {
    "en": (
        ("Hello", "Hello! I am ernie-4.5-nano. Ask me 12 + 7."),
        ("Hi", "Hello! I am ernie-4.5-nano. Ask me 12 + 7."),
        ("Who are you?", "I am ernie-4.5-nano, a very small ERNIE 4.5 model."),
        ("What are you?", "I am ernie-4.5-nano, a very small ERNIE 4.5 model."),
        ("What can you do?", "Small sums, capitals, opposites, counting and sorting."),
        ("Thank you", "You are welcome."),
    ),
    "zh": (
        ("你好", "你好！我是 ernie-4.5-nano。问我12加7。"),
        ("您好", "你好！我是 ernie-4.5-nano。问我12加7。"),
        ("你是谁？", "我是 ernie-4.5-nano，一个很小的文心 4.5 模型。"),
        ("介绍一下你自己", "我是 ernie-4.5-nano，一个很小的文心 4.5 模型。"),
        ("你会做什么？", "小算术、首都、反义词、计数和排序。"),
        ("谢谢", "不客气。"),
    ),
}

SYSTEMS: dict[str, tuple[str, ...]] = {
    "en": ("You are a helpful assistant.", "Answer briefly.", "You are ERNIE."),
    "zh": ("你是一个有用的助手。", "请简短回答。", "你是文心。"),
}
